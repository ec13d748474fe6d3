#include "lib/engine/sglang/load/normalise.h"

#include <fmt/format.h>

#include <array>

#include "lib/engine/sglang/causes.h"
#include "lib/engine/sglang/load/diagnosis.h"
#include "lib/engine/sglang/load/stack_rows.h"
#include "lib/engine/sglang/names.h"

namespace moelora::sglang {
namespace {

class LayerNormaliser {
 public:
  LayerNormaliser(CpuAdapter& adapter, LayerWeights& weights, const ModelClass& model,
                  const Features& features)
      : adapter_(adapter), weights_(weights), model_(model), features_(features) {}

  void run() {
    stack_qkv();
    if (features_.stacked_experts) rename_w();
    stack_mamba();
    stack_gdn();
    stack_gate_up();
    if (features_.replicated_layers) stack_mla();
  }

 private:
  // Calls `step` with each entry of now, in order, that still is one when its turn comes.
  template <class F>
  void each(F&& step) {
    const size_t count = weights_.count();
    for (size_t i = 0; i < count; ++i)
      if (Staged* entry = weights_.at(i)) step(*entry);
  }

  bool any(std::string_view word) {
    for (size_t i = 0; i < weights_.count(); ++i) {
      const Staged* entry = weights_.at(i);
      if (entry != nullptr && contains(entry->name, word)) return true;
    }
    return false;
  }

  // Replaces `parts` by their stack; a part that is no entry is zeros.
  void stack(std::string name, std::span<const Staged* const> parts, int dim) {
    Stacked stacked = stack_rows(parts, dim);
    std::vector<int32_t> about;
    std::vector<std::string> names;
    for (const Staged* part : parts) {
      const auto sources = part->sources();
      about.insert(about.end(), sources.begin(), sources.end());
      if (!part->name.empty()) names.push_back(part->name);
    }
    if (!stacked.error.empty()) refuse_stack(parts, stacked.error, about);
    for (const std::string& gone : names)
      if (Staged* entry = weights_.find(gone)) weights_.take(*entry);
    if (!stacked.error.empty()) return;
    const auto before =
        weights_.set({std::move(name), std::move(stacked.shape), std::move(stacked.blocks)});
    adapter_.lose(before, &cause::ignored_tensors, "another tensor takes its place");
  }

  void refuse_stack(std::span<const Staged* const> parts, const std::string& error,
                    const std::vector<int32_t>& about) {
    const Diagnosis why = cause_of_stack(adapter_, parts);
    adapter_.raise({why.cause, stage::kRead, "RuntimeError", error, why.detail}, about);
  }

  void drop(const std::string& name) {
    Staged* entry = weights_.find(name);
    if (entry == nullptr) return;
    for (int32_t source : entry->sources()) adapter_.refused[static_cast<size_t>(source)] = true;
    weights_.take(*entry);
  }

  void missing(const Cause* cause, const std::string& name, const Staged& entry,
               std::string detail) {
    adapter_.raise({cause, stage::kRead, "KeyError", py_repr(name), std::move(detail)},
                   entry.sources());
  }

  // Every q needs a v; a k may be absent from the whole layer, and is zeros then.
  void stack_qkv() {
    const bool has_k = any("k_proj");
    each([&](Staged& entry) {
      if (contains(entry.name, "q_proj"))
        stack_qkv_of(entry, has_k);
      else if (contains(entry.name, "qkv_proj") && entry.is_a())
        repeat(entry, 3);
    });
  }

  void stack_qkv_of(Staged& q, bool has_k) {
    const std::string k_name = replaced(q.name, "q_proj", "k_proj");
    const std::string v_name = replaced(q.name, "q_proj", "v_proj");
    const Staged *k = weights_.find(k_name), *v = weights_.find(v_name);
    if ((has_k && k == nullptr) || v == nullptr) {
      if (has_k && k == nullptr)
        missing(&cause::half_k_proj, k_name, q, "k_proj is there for one factor of the layer only");
      else
        missing(&cause::lone_q_proj, v_name, q, "q_proj without v_proj");
      for (const std::string& part : {std::string(q.name), k_name, v_name}) drop(part);
      return;
    }
    const Staged zeros = zeros_like(*v);
    const Staged* parts[] = {&q, has_k ? k : &zeros, v};
    stack(replaced(q.name, "q_proj", "qkv_proj"), parts, 0);
  }

  void repeat(Staged& entry, int times) {
    if (entry.rank() <= 2 || times != 3) return repeat_rows(entry, times);
    adapter_.raise({&cause::shape_mismatch, stage::kRead, "RuntimeError",
                    "Number of dimensions of repeat dims can not be smaller than number of "
                    "dimensions of tensor",
                    fmt::format("shape {}, expected two dims", to_string(entry.shape))},
                   entry.sources());
    weights_.take(entry);
  }

  void rename_w() {
    struct Rename {
      std::string_view from, to;
    };
    constexpr std::array<Rename, 3> kRenames = {
        {{".w1.", ".gate_proj."}, {".w3.", ".up_proj."}, {".w2.", ".down_proj."}}};
    each([&](Staged& entry) {
      for (const Rename& rename : kRenames) {
        if (!contains(entry.name, rename.from)) continue;
        Staged moved = weights_.take(entry);
        moved.name = replaced(moved.name, rename.from, rename.to);
        const auto before = weights_.set(std::move(moved));
        adapter_.lose(before, &cause::ignored_tensors, "another tensor takes its place");
        return;
      }
    });
  }

  void stack_mamba() {
    if (!any("x_proj")) return;
    each([&](Staged& gate) {
      if (!contains(gate.name, "gate_proj")) return;
      const Staged* x = weights_.find(replaced(gate.name, "gate_proj", "x_proj"));
      if (x == nullptr) return;
      const Staged* parts[] = {&gate, x};
      stack(replaced(gate.name, "gate_proj", "in_proj"), parts, gate.rank() - 2);
    });
  }

  void stack_gdn() {
    if (!any("in_proj_q")) return;
    each([&](Staged& q) {
      if (contains(q.name, "in_proj_q.")) {
        const auto other = [&](std::string_view part) {
          return weights_.find(replaced(q.name, "in_proj_q", part));
        };
        const Staged* parts[] = {&q, other("in_proj_k"), other("in_proj_v"), other("in_proj_z")};
        if (parts[1] == nullptr || parts[2] == nullptr || parts[3] == nullptr) return;
        stack(replaced(q.name, "in_proj_q", "in_proj_qkvz"), parts, q.rank() - 2);
      } else if (contains(q.name, "in_proj_qkvz") && q.is_a()) {
        repeat(q, 4);
      }
    });
  }

  void stack_gate_up() {
    each([&](Staged& entry) {
      if (contains(entry.name, "gate_proj"))
        stack_gate(entry);
      else if (contains(entry.name, "gate_up_proj") && entry.is_a())
        repeat(entry, 2);
    });
  }

  void stack_gate(Staged& gate) {
    const Staged* up = weights_.find(replaced(gate.name, "gate_proj", "up_proj"));
    const bool empty = up == nullptr || product(up->shape) == 0;
    std::string name = replaced(gate.name, "gate_proj", "gate_up_proj");
    if (empty && !model_.gated && contains(gate.name, ".experts.")) {
      Staged moved = weights_.take(gate);
      moved.name = std::move(name);
      weights_.set(std::move(moved));
      if (up != nullptr) weights_.take(*weights_.find(up->name));
      return;
    }
    Staged zeros = zeros_like(gate);
    if (empty && up != nullptr) zeros.name = up->name;
    const Staged* parts[] = {&gate, empty ? &zeros : up};
    stack(std::move(name), parts, gate.rank() - 2);
  }

  static int64_t product(const Shape& shape) {
    for (int64_t extent : shape)
      if (extent == 0) return 0;
    return 1;
  }

  void stack_mla() {
    if (!any("q_a_proj")) return;
    each([&](Staged& q) {
      if (!contains(q.name, "q_a_proj") || contains(q.name, "fused_qkv_a_proj_with_mqa")) return;
      const Staged* kv = weights_.find(replaced(q.name, "q_a_proj", "kv_a_proj_with_mqa"));
      const Staged zeros = zeros_like(q);
      const Staged* parts[] = {&q, kv != nullptr ? kv : &zeros};
      stack(replaced(q.name, "q_a_proj", "fused_qkv_a_proj_with_mqa"), parts, 0);
    });
  }

  CpuAdapter& adapter_;
  LayerWeights& weights_;
  const ModelClass& model_;
  const Features& features_;
};

}  // namespace

void normalise(CpuAdapter& adapter, const ModelClass& model, const Features& features) {
  for (LayerWeights& weights : adapter.layers)
    LayerNormaliser(adapter, weights, model, features).run();
}

}  // namespace moelora::sglang
