#include "lib/engine/sglang/copy_layer.h"

#include <fmt/format.h>

#include <algorithm>

#include "lib/engine/sglang/causes.h"
#include "lib/engine/sglang/copy_rows.h"
#include "lib/engine/sglang/hidden_dim.h"

namespace moelora::sglang {
namespace {

class LayerCopier {
 public:
  LayerCopier(const CopyContext& context, const Pool& pool, int layer, const LayerBuckets& buckets)
      : c_(context), pool_(pool), layer_(layer), buckets_(buckets) {}

  void copy() {
    for (const WrappedModule& wrapped : c_.wrapping.layers[static_cast<size_t>(layer_)])
      prepare(wrapped);
    for (const Active& active : active_) copy_a(active);
    for (const Active& active : active_) copy_b(active);
  }

 private:
  struct Active {
    int buffer;
    const ClassModule* module;
    bool has_a = true;  // else SGLang cuts neither side
    bool refused = false;
  };

  const Buffer& buffer_of(const Active& active) const {
    return pool_.buffers[static_cast<size_t>(active.buffer)];
  }
  const Held& a_of(const Active& active) const {
    return buckets_.a[static_cast<size_t>(active.buffer)];
  }
  const Held& b_of(const Active& active) const {
    return buckets_.b[static_cast<size_t>(active.buffer)];
  }

  // The cuts of all modules come before any copy, and they are where a missing B shows.
  void prepare(const WrappedModule& wrapped) {
    Active active{pool_.index_of(wrapped.buffer), wrapped.module};
    if (active.buffer < 0) return;  // refused at start-up
    const Held &a = a_of(active), &b = b_of(active);
    active.has_a = !a.is_none();
    if (wrapped.module->kind != LayerKind::fused_moe && a.tensor != nullptr && b.is_none()) {
      refuse_lone_a(*wrapped.module, *a.tensor);
      active.refused = true;
    }
    if (c_.model.interleaved && wrapped.buffer == "gate_up_proj_moe")
      for (const Staged* staged : b.all()) {
        const Sliced sliced = slice_moe_b(c_.model, wrapped.buffer, *staged, pool_.rank);
        if (!sliced.error_type.empty()) refuse_slice(sliced);
      }
    active_.push_back(active);
  }

  // A factor whose B is there, but was refused before, is told already.
  void refuse_lone_a(const ClassModule& module, const Staged& a) {
    std::vector<int32_t> alone;
    for (int32_t source : a.sources()) {
      if (c_.adapter.partner_of(source) < 0) alone.push_back(source);
      c_.adapter.refused[static_cast<size_t>(source)] = true;
    }
    if (alone.empty()) return;
    const bool indexed = module.kind != LayerKind::row && module.kind != LayerKind::replicated &&
                         (c_.features.slices_always || pool_.rank.tp > 1);
    c_.adapter.raise({"orphan-factor", stage::kLoad, indexed ? "TypeError" : "AssertionError",
                      indexed ? "'NoneType' object is not subscriptable" : "",
                      fmt::format("{} has lora_A and no lora_B", module.leaf()), true},
                     alone);
  }

  void copy_a(const Active& active) {
    if (active.refused) return;
    const Buffer& buffer = buffer_of(active);
    if (buffer.moe) return copy_moe(active, true);
    if (const Staged* a = a_of(active).tensor) copy_dense_a(active, buffer, *a);
  }

  void copy_b(const Active& active) {
    if (active.refused) return;
    const Buffer& buffer = buffer_of(active);
    if (buffer.moe) return copy_moe(active, false);
    if (const Staged* b = b_of(active).tensor) copy_dense_b(active, buffer, *b);
  }

  bool slices() const { return c_.features.slices_always || pool_.rank.tp > 1; }

  Write at(const Active& active, bool is_a) const {
    Write out;
    out.buffer = buffer_of(active).name;
    out.layer = layer_;
    out.is_a = is_a;
    return out;
  }

  void copy_dense_a(const Active& active, const Buffer& buffer, const Staged& a) {
    const Shape& shape = buffer.a[static_cast<size_t>(layer_)];
    const int64_t r = c_.adapter.r, rows = std::min(r * buffer.stacked, shape[0]);
    const Sliced sliced = slices() ? slice_dense_a(*active.module, a, pool_.rank) : whole(a);
    if (!fits({rows, shape[1]}, sliced)) return;
    Write write = at(active, true);
    set_columns(write, sliced);
    const std::vector<int64_t> each(static_cast<size_t>(buffer.stacked), r);
    std::vector<Part> parts;
    for (int i = 0; i < buffer.stacked; ++i) parts.push_back({i, r, 0});
    copy_rows(c_.sink, sliced, write, parts, each);
  }

  void copy_dense_b(const Active& active, const Buffer& buffer, const Staged& b) {
    const Shape& shape = buffer.b[static_cast<size_t>(layer_)];
    const bool cut = active.has_a && slices();
    const Sliced sliced =
        cut ? slice_dense_b(*active.module, c_.model.config, b, pool_.rank) : whole(b);
    if (!fits({shape[0], std::min(c_.adapter.r, shape[1])}, sliced)) return;
    Write write = at(active, false);
    set_columns(write, sliced);
    std::vector<Part> parts;
    for (const Span& share : shares_of(*active.module, c_.model.config, pool_.rank))
      parts.push_back({static_cast<int>(parts.size()), share.count, share.first});
    copy_rows(c_.sink, sliced, write, parts, active.module->out);
  }

  // Experts: every expert's factor of one side.
  void copy_moe(const Active& active, bool is_a) {
    const Held& held = is_a ? a_of(active) : b_of(active);
    const Buffer& buffer = buffer_of(active);
    const bool outer =
        pool_.request.shared_outer && buffer.name == (is_a ? "gate_up_proj_moe" : "down_proj_moe");
    if (held.empty()) return;
    if (outer) return copy_outer(active, held, is_a);
    if (held.tensor != nullptr) return copy_stack(active, *held.tensor, is_a);
    for (const auto& [expert, staged] : held.experts)
      if (const auto local = local_of(expert)) copy_expert(active, *staged, *local, -1, is_a);
  }

  std::optional<int64_t> local_of(int64_t expert) const {
    if (!pool_.local_ids) return expert;
    const int64_t local = expert - pool_.rank.ep_rank * pool_.local_experts;
    return local >= 0 && local < pool_.local_experts ? std::optional(local) : std::nullopt;
  }

  void copy_stack(const Active& active, const Staged& staged, bool is_a) {
    const int64_t total = staged.shape[0];
    const int64_t first = pool_.local_ids ? pool_.rank.ep_rank * pool_.local_experts : 0;
    const int64_t count = pool_.local_ids ? std::min(pool_.local_experts, total - first) : total;
    for (int64_t i = 0; i < count; ++i)
      if (!copy_expert(active, staged, i, first + i, is_a)) return;
  }

  // The factor that all experts share: one tensor of leading extent 1, or one numbered expert.
  void copy_outer(const Active& active, const Held& held, bool is_a) {
    const int64_t count =
        held.tensor != nullptr ? held.tensor->shape[0] : static_cast<int64_t>(held.experts.size());
    if (count != 1) return refuse_outer(active, held, is_a, count);
    const bool stack = held.tensor != nullptr;
    copy_expert(active, stack ? *held.tensor : *held.experts.front().second, 0, stack ? 0 : -1,
                is_a);
  }

  void refuse_outer(const Active& active, const Held& held, bool is_a, int64_t count) {
    const std::string_view name = buffer_of(active).name;
    std::vector<int32_t> about;
    for (const Staged* staged : held.all()) {
      const auto sources = staged->sources();
      about.insert(about.end(), sources.begin(), sources.end());
    }
    const bool half = !is_a && gate_up_is_shared();
    c_.adapter.raise(
        {half ? "half-shared" : "shared-outer-flag", stage::kLoad, "ValueError",
         held.tensor != nullptr
             ? fmt::format("experts_shared_outer_loras is enabled but {} {} has expert_dim={} "
                           "(expected 1).",
                           name, is_a ? "lora_A" : "lora_B", count)
             : fmt::format("experts_shared_outer_loras is enabled but {} {} dict has {} entries "
                           "(expected 1).",
                           name, is_a ? "lora_A" : "lora_B", count),
         half ? "the experts share lora_A of gate and up, but not lora_B of down"
              : "one factor an expert, where the server holds one for all of them",
         true},
        about);
  }

  bool gate_up_is_shared() const {
    const int index = pool_.index_of("gate_up_proj_moe");
    const Staged* a = index < 0 ? nullptr : buckets_.a[static_cast<size_t>(index)].tensor;
    return a != nullptr && a->shape[0] == 1;
  }

  // False where it is refused.
  bool copy_expert(const Active& active, const Staged& staged, int64_t expert,
                   int64_t source_expert, bool is_a) {
    const Buffer& buffer = buffer_of(active);
    const Shape& shape = (is_a ? buffer.a : buffer.b)[static_cast<size_t>(layer_)];
    if (expert >= shape[0]) return refuse_expert(staged, expert, shape[0]);
    Sliced sliced = is_a ? slice_moe_a(c_.model, buffer.name, staged, pool_.rank)
                         : slice_moe_b(c_.model, buffer.name, staged, pool_.rank);
    if (!sliced.error_type.empty()) return refuse_slice(sliced);
    if (source_expert >= 0) sliced.shape.erase(sliced.shape.begin());
    Write write = at(active, is_a);
    write.expert = expert;
    write.source_expert = source_expert;
    set_columns(write, sliced);
    return is_a ? copy_expert_a(buffer, shape, sliced, write) : copy_expert_b(shape, sliced, write);
  }

  // gate and up begin at rows 0 and R: each is cut out of the stack and checked by itself.
  bool copy_expert_a(const Buffer& buffer, const Shape& shape, const Sliced& sliced, Write write) {
    const int64_t r = c_.adapter.r, R = pool_.request.max_rank;
    const std::vector<int64_t> each(static_cast<size_t>(buffer.stacked), r);
    for (int64_t i = 0; i < buffer.stacked; ++i) {
      Sliced part = sliced;
      const int64_t have = sliced.shape.empty() ? 0 : sliced.shape[0];
      part.runs[0] = {std::min(i * r, have), std::clamp<int64_t>(have - i * r, 0, r)};
      if (sliced.shape.size() == 2) part.shape[0] = part.runs[0].count;
      const int64_t first = std::min(i * R, shape[1]);
      if (!fits({std::min(first + r, shape[1]) - first, shape[2]}, part)) return false;
      write.row = first;
      const Part whole_part[] = {{static_cast<int>(i), r, 0}};
      copy_rows(c_.sink, part, write, whole_part, each);
    }
    return true;
  }

  bool copy_expert_b(const Shape& shape, const Sliced& sliced, Write write) {
    if (!fits({shape[1], std::min(c_.adapter.r, shape[2])}, sliced)) return false;
    write.scaled = true;
    const bool halves = write.buffer == "gate_up_proj_moe" && c_.model.gated;
    const int64_t part = halves ? shape[1] / 2 : shape[1];
    const int64_t first =
        halves || write.buffer == "gate_up_proj_moe" ? pool_.rank.moe_tp_rank * part : 0;
    std::vector<Part> parts{{0, part, first}};
    std::vector<int64_t> whole_parts{halves ? c_.model.intermediate : shape[1]};
    if (halves) {
      parts.push_back({1, part, first});
      whole_parts.push_back(c_.model.intermediate);
    }
    if (sliced.interleaved)
      copy_interleaved(c_.sink, sliced, write, parts, whole_parts);
    else
      copy_rows(c_.sink, sliced, write, parts, whole_parts);
    return true;
  }

  bool refuse_expert(const Staged& staged, int64_t expert, int64_t experts) {
    c_.adapter.raise(
        {"expert-out-of-range", stage::kLoad, "IndexError",
         fmt::format("index {} is out of bounds for dimension 1 with size {}", expert, experts),
         fmt::format("expert {} of a model of {}", expert, experts), true},
        staged.sources());
    return false;
  }

  bool refuse_slice(const Sliced& sliced) {
    const Cause cause = cause_of_shape(c_.adapter, *sliced.tensor, pool_.request.max_rank,
                                       fmt::format("shape {}, which cannot be cut in gate and up",
                                                   to_string(sliced.tensor->shape)));
    c_.adapter.raise(
        {cause.rule, stage::kLoad, sliced.error_type, sliced.error_text, cause.detail, true},
        sliced.tensor->sources());
    return false;
  }

  void set_columns(Write& write, const Sliced& sliced) const {
    write.columns = sliced.columns.count;
    write.source_column = sliced.columns.first;
  }

  // load_lora_weight_tensor(): exactly the buffer's shape.
  bool fits(const Shape& view, const Sliced& sliced) {
    if (!sliced.error_type.empty()) return refuse_slice(sliced);
    if (view == sliced.shape) return true;
    const Cause cause = cause_of_shape(c_.adapter, *sliced.tensor, pool_.request.max_rank,
                                       fmt::format("the server makes {} of it, and expects {}",
                                                   to_string(sliced.shape), to_string(view)));
    if (c_.adapter.raised_before(cause.rule, sliced.tensor->sources())) return false;
    c_.adapter.raise({cause.rule, stage::kLoad, "AssertionError",
                      fmt::format("LoRA buffer shape {} does not match weight shape {}.",
                                  py_size(view), py_size(sliced.shape)),
                      cause.detail, true},
                     sliced.tensor->sources());
    return false;
  }

  const CopyContext& c_;
  const Pool& pool_;
  int layer_;
  const LayerBuckets& buckets_;
  std::vector<Active> active_;
};

}  // namespace

void copy_layer(const CopyContext& context, const Pool& pool, int layer,
                const LayerBuckets& buckets) {
  LayerCopier(context, pool, layer, buckets).copy();
}

}  // namespace moelora::sglang
