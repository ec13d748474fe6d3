#include "lib/engine/sglang/load/load_weights.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <utility>

#include "lib/engine/sglang/causes.h"
#include "lib/engine/sglang/load/diagnosis.h"
#include "lib/engine/sglang/load/layer_weights.h"
#include "lib/engine/sglang/load/read_config.h"
#include "lib/engine/sglang/names.h"

namespace moelora::sglang {
namespace {

// Files of a training run that the loader leaves out.
constexpr std::array<std::string_view, 4> kTrainingFiles = {"training_args.bin", "optimizer.bin",
                                                            "optimizer.pt", "scheduler.pt"};

bool is_training_file(const std::string& name) {
  return std::find(kTrainingFiles.begin(), kTrainingFiles.end(), name) != kTrainingFiles.end();
}

// An extent may be anything where another is zero: bounded, so that sums of four stay exact.
Shape bounded(Shape shape) {
  constexpr int64_t kMost = int64_t{1} << 56;
  for (int64_t& extent : shape)
    if (extent < 0 || extent > kMost) extent = kMost;
  return shape;
}

// All files of the first ending that there are any of.
std::vector<const WeightFile*> files_to_read(const ServedAdapter& served) {
  for (std::string_view ending : {".safetensors", ".bin", ".pt"}) {
    std::vector<const WeightFile*> found;
    for (const WeightFile& file : served.files)
      if (file.name.ends_with(ending) && !is_training_file(file.name)) found.push_back(&file);
    if (!found.empty()) return found;
  }
  return {};
}

struct WeightReader {
  CpuAdapter& adapter;
  const ModelClass& model;

  void read(const ServedAdapter& served) {
    const auto files = files_to_read(served);
    if (files.empty()) {
      adapter.alive = false;
      return adapter.raise(
          {&cause::no_weights, stage::kRead, "RuntimeError",
           fmt::format("Cannot find any model weights with `{}`", in_text(served.folder)),
           "no weights file was found"});
    }
    for (const WeightFile* file : files) {
      const auto index = static_cast<uint32_t>(adapter.files.size());
      adapter.files.push_back(file->name);
      for (const TensorHeader& tensor : file->tensors)
        adapter.sources.push_back({tensor.name, index, bounded(tensor.shape)});
    }
    adapter.outcome.refused.resize(adapter.sources.size());
    adapter.outcome.lost.resize(adapter.sources.size());
    adapter.layers.resize(static_cast<size_t>(model.layers()));
    adapter.alive = adapter.sources.empty() || check_iterable_targets(adapter);
    if (!adapter.alive) return;
    for (size_t i = 0; i < adapter.sources.size(); ++i) place(static_cast<int32_t>(i));
  }

  void place(int32_t id) {
    const Source& tensor = adapter.source(id);
    Staged staged{replaced(tensor.name, "unembed_tokens", "lm_head"),
                  tensor.shape,
                  {{id, row_count(tensor.shape)}}};
    const auto layer = layer_of(staged.name);
    if (layer)
      place_in_layer(*layer, std::move(staged));
    else if (contains(staged.name, "embed_tokens") || contains(staged.name, "lm_head"))
      place_embedding(id, std::move(staged));
    else if (contains(staged.name, "input_embeddings") ||
             contains(staged.name, "output_embeddings"))
      refuse_added(id, tensor);
    else
      adapter.lose({id}, &cause::ignored_tensors,
                   "its name has no layers.N: SGLang reads it and drops it");
  }

  void place_in_layer(int64_t layer, Staged staged) {
    if (layer >= model.layers())
      return adapter.raise({&cause::layer_out_of_range, stage::kRead, "IndexError",
                            fmt::format("index {} is out of range", layer),
                            fmt::format("layer {} of a model of {} layers", layer, model.layers())},
                           staged.sources());
    adapter.lose(adapter.layers[static_cast<size_t>(layer)].set(std::move(staged)),
                 &cause::stray_weight_file,
                 "another file of the folder has a tensor of this name, and that one is served");
  }

  void place_embedding(int32_t id, Staged staged) {
    const std::string_view module =
        contains(staged.name, "embed_tokens") ? "embed_tokens" : "lm_head";
    if (adapter.all_targets || adapter.targets.count(module) != 0)
      return adapter.lose(adapter.embeddings.set(std::move(staged)), &cause::stray_weight_file,
                          "another file of the folder has a tensor of this name");
    const bool factor = is_factor(staged.name);
    adapter.lose({id}, factor ? &cause::undeclared_embeddings : &cause::ignored_tensors,
                 factor ? "target_modules does not name its module: SGLang drops it"
                        : "SGLang serves no saved module: it drops the tensor");
  }

  void refuse_added(int32_t id, const Source& tensor) {
    const int64_t rows = tensor.shape.empty() ? 0 : tensor.shape[0];
    if (rows == 0) return;
    adapter.raise(
        {&cause::added_tokens, stage::kRead, "AssertionError",
         fmt::format(
             "LoRA adapter {} has lora_added_tokens_size 0 specified in the config, but the "
             "loaded weight '{}' has shape {} in first dimension",
             in_text(adapter.name), in_text(tensor.name), rows),
         "embeddings of added tokens cannot be served"},
        {id});
  }
};

// ---- what the server makes of a layer --------------------------------------------------------

// A 1-D tensor without elements is skipped by torch.cat, whatever the others are.
bool is_skipped(const Staged& part) { return part.shape == Shape{0}; }

std::string mismatch(const Staged& first, const Staged& part, size_t index, size_t dim) {
  if (part.shape.size() != first.shape.size())
    return fmt::format("Tensors must have same number of dimensions: got {} and {}",
                       first.shape.size(), part.shape.size());
  for (size_t d = 0; d < first.shape.size(); ++d)
    if (d != dim && part.shape[d] != first.shape[d])
      return fmt::format(
          "Sizes of tensors must match except in dimension {}. Expected size {} but "
          "got size {} for tensor number {} in the list.",
          dim, first.shape[d], part.shape[d], index);
  return "";
}

// torch.cat of staged tensors along `dim` (negative: from the end). On success `error` is empty;
// else it is what torch raises (a RuntimeError), and shape and blocks are not set.
struct Stacked {
  Shape shape;
  std::vector<Block> blocks;
  std::string error;
};
Stacked stack_rows(std::span<const Staged* const> parts, int dim) {
  const auto found = std::find_if_not(parts.begin(), parts.end(),
                                      [](const Staged* part) { return is_skipped(*part); });
  if (found == parts.end()) return {{0}, {}, ""};
  const Staged& first = **found;
  if (first.rank() == 0)
    return {{}, {}, "zero-dimensional tensor (at position 0) cannot be concatenated"};
  const int wrapped = dim < 0 ? dim + first.rank() : dim;
  const auto at = static_cast<size_t>(wrapped < 0 || wrapped >= first.rank() ? 0 : wrapped);
  Stacked out{first.shape, {}, ""};
  out.shape[at] = 0;
  for (size_t i = 0; i < parts.size(); ++i) {
    if (is_skipped(*parts[i])) continue;
    out.error = mismatch(first, *parts[i], i, at);
    if (!out.error.empty()) return out;
    out.shape[at] += parts[i]->shape[at];
    out.blocks.insert(out.blocks.end(), parts[i]->blocks.begin(), parts[i]->blocks.end());
  }
  return out;
}

// torch.zeros_like: the same shape, no source.
Staged zeros_like(const Staged& other) {
  int64_t rows = 0;
  for (const Block& block : other.blocks) rows += block.rows;
  return {"", other.shape, {{kZeros, rows}}};
}

// torch's repeat along the rows, in place.
void repeat_rows(Staged& staged, int times) {
  const std::vector<Block> once = staged.blocks;
  for (int i = 1; i < times; ++i)
    staged.blocks.insert(staged.blocks.end(), once.begin(), once.end());
  if (staged.rank() == 1) staged.shape.insert(staged.shape.begin(), 1);
  if (staged.rank() >= 2) staged.shape[staged.shape.size() - 2] *= times;
}

struct LayerNormaliser {
  CpuAdapter& adapter;
  LayerWeights& weights;
  const ModelClass& model;
  const Features& features;

  void run() {
    stack_qkv();
    if (features.stacked_experts) rename_w();
    stack_mamba();
    stack_gdn();
    stack_gate_up();
    if (features.replicated_layers) stack_mla();
  }

  bool any(std::string_view word) {
    bool found = false;
    weights.each([&](const Staged& entry) { found = found || contains(entry.name, word); });
    return found;
  }

  // Replaces `parts` by their stack; a part without a name is zeros.
  void stack(std::string name, std::span<const Staged* const> parts, int dim) {
    Stacked stacked = stack_rows(parts, dim);
    if (!stacked.error.empty()) {
      const Diagnosis why = cause_of_stack(adapter, parts);
      adapter.raise({why.cause, stage::kRead, "RuntimeError", stacked.error, why.detail},
                    sources_of(parts));
    }
    for (const Staged* part : parts)
      if (Staged* entry = weights.find(part->name)) weights.take(*entry);
    if (!stacked.error.empty()) return;
    put({std::move(name), std::move(stacked.shape), std::move(stacked.blocks)});
  }

  void put(Staged value) {
    adapter.lose(weights.set(std::move(value)), &cause::ignored_tensors,
                 "another tensor takes its place");
  }

  // The entry whose name has `to` where that of `entry` has `from`; null for none.
  Staged* other(const Staged& entry, std::string_view from, std::string_view to) {
    return weights.find(replaced(entry.name, from, to));
  }

  void drop(const std::string& name) {
    Staged* entry = weights.find(name);
    if (entry == nullptr) return;
    for (int32_t source : entry->sources()) adapter.refuse(source);
    weights.take(*entry);
  }

  void missing(const Cause* cause, const std::string& name, const Staged& entry,
               std::string detail) {
    adapter.raise({cause, stage::kRead, "KeyError", py_repr(name), std::move(detail)},
                  entry.sources());
  }

  // Every q needs a v; a k may be absent from the whole layer, and is zeros then.
  void stack_qkv() {
    const bool has_k = any("k_proj");
    weights.each([&](Staged& entry) {
      if (contains(entry.name, "q_proj"))
        stack_qkv_of(entry, has_k);
      else if (contains(entry.name, "qkv_proj") && entry.is_a())
        repeat(entry, 3);
    });
  }

  void stack_qkv_of(Staged& q, bool has_k) {
    const std::string k_name = replaced(q.name, "q_proj", "k_proj");
    const std::string v_name = replaced(q.name, "q_proj", "v_proj");
    const Staged *k = weights.find(k_name), *v = weights.find(v_name);
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
    adapter.raise({&cause::shape_mismatch, stage::kRead, "RuntimeError",
                   "Number of dimensions of repeat dims can not be smaller than number of "
                   "dimensions of tensor",
                   fmt::format("shape {}, expected two dims", to_string(entry.shape))},
                  entry.sources());
    weights.take(entry);
  }

  void rename_w() {
    constexpr std::pair<std::string_view, std::string_view> kRenames[] = {
        {".w1.", ".gate_proj."}, {".w3.", ".up_proj."}, {".w2.", ".down_proj."}};
    weights.each([&](Staged& entry) {
      for (const auto& [from, to] : kRenames) {
        if (!contains(entry.name, from)) continue;
        Staged moved = weights.take(entry);
        moved.name = replaced(moved.name, from, to);
        return put(std::move(moved));
      }
    });
  }

  void stack_mamba() {
    if (!any("x_proj")) return;
    weights.each([&](Staged& gate) {
      if (!contains(gate.name, "gate_proj")) return;
      const Staged* x = other(gate, "gate_proj", "x_proj");
      if (x == nullptr) return;
      const Staged* parts[] = {&gate, x};
      stack(replaced(gate.name, "gate_proj", "in_proj"), parts, gate.rank() - 2);
    });
  }

  void stack_gdn() {
    if (!any("in_proj_q")) return;
    weights.each([&](Staged& q) {
      if (contains(q.name, "in_proj_q.")) {
        const Staged* parts[] = {&q, other(q, "in_proj_q", "in_proj_k"),
                                 other(q, "in_proj_q", "in_proj_v"),
                                 other(q, "in_proj_q", "in_proj_z")};
        if (std::find(std::begin(parts), std::end(parts), nullptr) != std::end(parts)) return;
        stack(replaced(q.name, "in_proj_q", "in_proj_qkvz"), parts, q.rank() - 2);
      } else if (contains(q.name, "in_proj_qkvz") && q.is_a()) {
        repeat(q, 4);
      }
    });
  }

  void stack_gate_up() {
    weights.each([&](Staged& entry) {
      if (contains(entry.name, "gate_proj"))
        stack_gate(entry);
      else if (contains(entry.name, "gate_up_proj") && entry.is_a())
        repeat(entry, 2);
    });
  }

  void stack_gate(Staged& gate) {
    const Staged* up = other(gate, "gate_proj", "up_proj");
    const bool empty = up == nullptr || is_empty(up->shape);
    std::string name = replaced(gate.name, "gate_proj", "gate_up_proj");
    if (empty && !model.gated && contains(gate.name, ".experts.")) {
      Staged moved = weights.take(gate);
      moved.name = std::move(name);
      weights.set(std::move(moved));
      if (up != nullptr) weights.take(*weights.find(up->name));
      return;
    }
    Staged zeros = zeros_like(gate);
    if (empty && up != nullptr) zeros.name = up->name;
    const Staged* parts[] = {&gate, empty ? &zeros : up};
    stack(std::move(name), parts, gate.rank() - 2);
  }

  void stack_mla() {
    if (!any("q_a_proj")) return;
    weights.each([&](Staged& q) {
      if (!contains(q.name, "q_a_proj") || contains(q.name, "fused_qkv_a_proj_with_mqa")) return;
      const Staged* kv = other(q, "q_a_proj", "kv_a_proj_with_mqa");
      const Staged zeros = zeros_like(q);
      const Staged* parts[] = {&q, kv != nullptr ? kv : &zeros};
      stack(replaced(q.name, "q_a_proj", "fused_qkv_a_proj_with_mqa"), parts, 0);
    });
  }
};

}  // namespace

void load_weights(CpuAdapter& adapter, const ServedAdapter& served, const ModelClass& model,
                  const Features& features) {
  WeightReader{adapter, model}.read(served);
  if (!adapter.alive) return;
  for (LayerWeights& weights : adapter.layers)
    LayerNormaliser{adapter, weights, model, features}.run();
}

}  // namespace moelora::sglang
