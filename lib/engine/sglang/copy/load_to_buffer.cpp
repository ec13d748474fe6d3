#include "lib/engine/sglang/copy/load_to_buffer.h"

#include <fmt/core.h>

#include <algorithm>

#include "lib/engine/sglang/causes.h"
#include "lib/engine/sglang/copy/copy_rows.h"
#include "lib/engine/sglang/load/diagnosis.h"
#include "lib/engine/sglang/names.h"

namespace moelora::sglang {
namespace {

// --lora-strict-loading: what no target takes is refused before anything is copied.
void refuse_skipped(CpuAdapter& adapter, const NameSet& targets, const TargetMatcher& matcher,
                    const Features& features) {
  NameSet skipped;
  std::vector<const Staged*> entries;
  const auto look = [&](const Staged& entry) {
    if (matcher.find(entry.name) != nullptr) return;
    entries.push_back(&entry);
    skipped.insert(in_text(entry.name));
  };
  for (LayerWeights& weights : adapter.layers) weights.each(look);
  adapter.embeddings.each(look);
  if (entries.empty()) return;
  const Diagnosis why = cause_of_unmatched(adapter, *entries.front(), targets, features);
  adapter.raise(
      {why.cause, stage::kLoad, "ValueError",
       fmt::format("LoRA adapter '{}': {} weight(s) skipped because they did not match "
                   "any target module in {}. Skipped weights: {}. This likely indicates a "
                   "mismatch between the adapter's target modules and the base model "
                   "architecture.",
                   in_text(adapter.name), skipped.size(), py_list(targets), py_list(skipped)),
       why.detail, true},
      sources_of(entries));
}

// What copying dense modules, experts and embeddings to one rank's pool has in common.
struct Copier {
  const CopyContext& c;
  const Pool& pool;
  int layer = -1;  // -1: embeddings

  // Refuses a tensor that SGLang cannot cut. False, for its caller to return.
  bool refuse_slice(const Sliced& sliced) const {
    const Diagnosis why = cause_of_shape(c.adapter, *sliced.tensor, pool.request.max_rank,
                                         fmt::format("shape {}, which cannot be cut in gate and up",
                                                     to_string(sliced.tensor->shape)));
    c.adapter.raise(
        {why.cause, stage::kLoad, sliced.error_type, sliced.error_text, why.detail, true},
        sliced.tensor->sources());
    return false;
  }

  // Whether a tensor, cut, has exactly the buffer's shape, `view` (load_lora_weight_tensor()); else
  // it is refused. `layer_fits`: it is as wide as the layer, so that the buffer is not.
  bool fits(const Shape& view, const Sliced& sliced, bool layer_fits = false) const {
    if (!sliced.error_type.empty()) return refuse_slice(sliced);
    if (view == sliced.shape) return true;
    Diagnosis why = cause_of_shape(c.adapter, *sliced.tensor, pool.request.max_rank,
                                   fmt::format("the server makes {} of it, and expects {}",
                                               to_string(sliced.shape), to_string(view)));
    if (layer_fits && why.cause == &cause::shape_mismatch)
      why = {&cause::attention_width,
             fmt::format("the layer's own shape, {}, where SGLang's buffer is {}: it takes the "
                         "width from the config",
                         to_string(sliced.shape), to_string(view))};
    if (c.adapter.raised_before(why.cause, sliced.tensor->sources())) return false;
    c.adapter.raise({why.cause, stage::kLoad, "AssertionError",
                     fmt::format("LoRA buffer shape {} does not match weight shape {}.",
                                 py_size(view), py_size(sliced.shape)),
                     why.detail, true},
                    sliced.tensor->sources());
    return false;
  }

  // Where the rows and columns of `sliced` go: to the buffer's first row, unless the caller says
  // otherwise.
  Write at(std::string_view buffer, bool is_a, const Sliced& sliced) const {
    Write out;
    out.buffer = buffer;
    out.layer = layer;
    out.is_a = is_a;
    out.columns = sliced.columns.count;
    out.source_column = sliced.columns.first;
    return out;
  }

  const Shape& shape_of(const Buffer& buffer, bool is_a) const {
    return (is_a ? buffer.a : buffer.b)[static_cast<size_t>(layer)];
  }
};

// One side of what a buffer of routed experts receives: every expert of this rank, or the one
// factor that all of them share.
class ExpertCopier : Copier {
 public:
  ExpertCopier(const Copier& copier, const TempBuffers& buffers, const Buffer& buffer, bool is_a)
      : Copier(copier), buffers_(buffers), buffer_(buffer), is_a_(is_a) {}

  void copy(const TempBuffer& held) {
    if (held.empty()) return;
    if (pool.is_outer(buffer_, is_a_)) return copy_outer(held);
    if (held.tensor != nullptr) return copy_stack(*held.tensor);
    for (const auto& [expert, staged] : held.experts) {
      const int64_t local = expert - pool.first_expert();
      const bool elsewhere = local < 0 || local >= pool.local_experts;
      if (!pool.local_ids || !elsewhere) copy_expert(*staged, local, -1);
    }
  }

 private:
  void copy_stack(const Staged& staged) {
    const int64_t first = pool.first_expert(), left = staged.shape[0] - first;
    const int64_t count = pool.local_ids ? std::min(pool.local_experts, left) : left;
    for (int64_t i = 0; i < count; ++i)
      if (!copy_expert(staged, i, first + i)) return;
  }

  // The factor that all experts share: one tensor of leading extent 1, or one numbered expert.
  void copy_outer(const TempBuffer& held) {
    const int64_t count =
        held.tensor != nullptr ? held.tensor->shape[0] : static_cast<int64_t>(held.experts.size());
    if (count != 1) return refuse_outer(held, count);
    const bool stack = held.tensor != nullptr;
    copy_expert(stack ? *held.tensor : *held.experts.front().second, 0, stack ? 0 : -1);
  }

  void refuse_outer(const TempBuffer& held, int64_t count) {
    const std::string found = held.tensor != nullptr ? fmt::format("has expert_dim={}", count)
                                                     : fmt::format("dict has {} entries", count);
    const bool half = !is_a_ && gate_up_is_shared();
    c.adapter.raise(
        {half ? &cause::half_shared : &cause::shared_outer_flag, stage::kLoad, "ValueError",
         fmt::format("experts_shared_outer_loras is enabled but {} {} {} (expected 1).",
                     buffer_.name, is_a_ ? "lora_A" : "lora_B", found),
         half ? "the experts share lora_A of gate and up, but not lora_B of down"
              : "one factor an expert, where the server holds one for all of them",
         true},
        held.sources());
  }

  bool gate_up_is_shared() const {
    const int index = pool.index_of("gate_up_proj_moe");
    const Staged* a = index < 0 ? nullptr : buffers_.of(index, true).tensor;
    return a != nullptr && a->shape[0] == 1;
  }

  // False where it is refused.
  bool copy_expert(const Staged& staged, int64_t expert, int64_t source_expert) {
    const Shape& shape = shape_of(buffer_, is_a_);
    if (expert >= shape[0]) return refuse_expert(staged, expert, shape[0]);
    Sliced sliced = is_a_ ? slice_moe_a(c.model, buffer_.name, staged, pool.rank)
                          : slice_moe_b(c.model, c.features, buffer_.name, staged, pool.rank);
    if (!sliced.error_type.empty()) return refuse_slice(sliced);
    if (source_expert >= 0) sliced.shape.erase(sliced.shape.begin());
    Write write = at(buffer_.name, is_a_, sliced);
    write.expert = expert;
    write.source_expert = source_expert;
    return is_a_ ? copy_expert_a(shape, sliced, write) : copy_expert_b(shape, sliced, write);
  }

  // gate and up begin at rows 0 and R (before 0.5.11: at 0 and r): each is cut out of the stack and
  // checked by itself.
  bool copy_expert_a(const Shape& shape, const Sliced& sliced, Write write) {
    const int64_t r = c.adapter.r;
    const int64_t apart = c.features.any_rank_below_max ? pool.request.max_rank : r;
    const std::vector<int64_t> each(static_cast<size_t>(buffer_.stacked), r);
    for (int64_t i = 0; i < buffer_.stacked; ++i) {
      Sliced part = sliced;
      const int64_t have = sliced.shape.empty() ? 0 : sliced.shape[0];
      part.runs[0] = {std::min(i * r, have), std::clamp<int64_t>(have - i * r, 0, r)};
      if (sliced.shape.size() == 2) part.shape[0] = part.runs[0].count;
      const int64_t first = std::min(i * apart, shape[1]);
      if (!fits({std::min(first + r, shape[1]) - first, shape[2]}, part)) return false;
      write.row = first;
      const Part whole_part[] = {{static_cast<int>(i), r, 0}};
      copy_rows(c.sink, part, write, whole_part, each);
    }
    return true;
  }

  bool copy_expert_b(const Shape& shape, const Sliced& sliced, Write write) {
    if (!fits({shape[1], std::min(c.adapter.r, shape[2])}, sliced)) return false;
    write.scaled = true;
    const bool gate_up = buffer_.name == "gate_up_proj_moe";
    const bool halves = gate_up && c.model.gated;
    const int count = halves ? 2 : 1;
    const int64_t rows = shape[1] / count;
    std::vector<Part> parts;
    for (int i = 0; i < count; ++i)
      parts.push_back({i, rows, gate_up ? pool.rank.moe_tp_rank * rows : 0});
    const std::vector<int64_t> each(parts.size(), halves ? c.model.intermediate : rows);
    copy_rows(c.sink, sliced, write, parts, each);
    return true;
  }

  bool refuse_expert(const Staged& staged, int64_t expert, int64_t experts) {
    c.adapter.raise(
        {&cause::expert_out_of_range, stage::kLoad, "IndexError",
         fmt::format("index {} is out of bounds for dimension 1 with size {}", expert, experts),
         fmt::format("expert {} of a model of {}", expert, experts), true},
        staged.sources());
    return false;
  }

  const TempBuffers& buffers_;
  const Buffer& buffer_;
  bool is_a_;
};

class LayerCopier : Copier {
 public:
  LayerCopier(const CopyContext& context, const Pool& rank_pool, int index,
              const TempBuffers& buffers)
      : Copier{context, rank_pool, index}, buffers_(buffers) {}

  // All A first.
  void copy() {
    for (const WrappedModule& wrapped : c.wrapping.layers[static_cast<size_t>(layer)])
      prepare(wrapped);
    for (bool is_a : {true, false})
      for (const Active& active : active_)
        if (!active.refused) copy_side(active, is_a);
  }

 private:
  struct Active {
    int buffer;  // of the pool
    const ClassModule* module;
    bool has_a = true;  // else SGLang cuts neither side
    bool refused = false;
  };

  // The cuts of all modules come before any copy, and they are where a missing B shows.
  void prepare(const WrappedModule& wrapped) {
    Active active{pool.index_of(wrapped.buffer), wrapped.module};
    if (active.buffer < 0) return;  // refused at start-up
    const TempBuffer &a = buffers_.of(active.buffer, true), &b = buffers_.of(active.buffer, false);
    active.has_a = !a.is_none();
    if (wrapped.module->kind != LayerKind::fused_moe && a.tensor != nullptr && b.is_none()) {
      refuse_lone_a(*wrapped.module, *a.tensor);
      active.refused = true;
    }
    if (c.model.interleaved && wrapped.buffer == "gate_up_proj_moe")
      for (const Staged* staged : b.all()) {
        const Sliced sliced = slice_moe_b(c.model, c.features, wrapped.buffer, *staged, pool.rank);
        if (!sliced.error_type.empty()) refuse_slice(sliced);
      }
    active_.push_back(active);
  }

  // A factor whose B is there, but was refused before, is known already.
  void refuse_lone_a(const ClassModule& module, const Staged& a) {
    std::vector<int32_t> alone;
    for (int32_t source : a.sources()) {
      if (c.adapter.partner_of(source) < 0) alone.push_back(source);
      c.adapter.refuse(source);
    }
    if (alone.empty()) return;
    const bool indexed =
        module.kind != LayerKind::row && module.kind != LayerKind::replicated && slices();
    c.adapter.raise({&cause::orphan_factor, stage::kLoad, indexed ? "TypeError" : "AssertionError",
                     indexed ? "'NoneType' object is not subscriptable" : "",
                     fmt::format("{} has lora_A and no lora_B", module.leaf()), true},
                    alone);
  }

  void copy_side(const Active& active, bool is_a) {
    const Buffer& buffer = pool.buffers[static_cast<size_t>(active.buffer)];
    if (buffer.moe)
      return ExpertCopier(*this, buffers_, buffer, is_a).copy(buffers_.of(active.buffer, is_a));
    const Staged* staged = buffers_.of(active.buffer, is_a).tensor;
    if (staged == nullptr) return;
    if (is_a)
      copy_dense_a(active, buffer, *staged);
    else
      copy_dense_b(active, buffer, *staged);
  }

  bool slices() const { return c.features.slices_always || pool.rank.tp > 1; }

  void copy_dense_a(const Active& active, const Buffer& buffer, const Staged& a) {
    const Shape& shape = shape_of(buffer, true);
    const int64_t r = c.adapter.r, rows = std::min(r * buffer.stacked, shape[0]);
    const Sliced sliced = slices() ? slice_dense_a(*active.module, a, pool.rank) : whole(a);
    if (!fits({rows, shape[1]}, sliced, a.rank() == 2 && a.shape[1] == active.module->in)) return;
    const std::vector<int64_t> each(static_cast<size_t>(buffer.stacked), r);
    std::vector<Part> parts;
    for (int i = 0; i < buffer.stacked; ++i) parts.push_back({i, r, 0});
    copy_rows(c.sink, sliced, at(buffer.name, true, sliced), parts, each);
  }

  void copy_dense_b(const Active& active, const Buffer& buffer, const Staged& b) {
    const Shape& shape = shape_of(buffer, false);
    const bool cut = active.has_a && slices();
    const Sliced sliced =
        cut ? slice_dense_b(*active.module, c.model.config, b, pool.rank) : whole(b);
    const bool layer_fits = b.rank() == 2 && b.shape[0] == active.module->rows();
    if (!fits({shape[0], std::min(c.adapter.r, shape[1])}, sliced, layer_fits)) return;
    std::vector<Part> parts;
    for (const Span& share : shares_of(*active.module, c.model.config, pool.rank))
      parts.push_back({static_cast<int>(parts.size()), share.count, share.first});
    copy_rows(c.sink, sliced, at(buffer.name, false, sliced), parts, active.module->out);
  }

  const TempBuffers& buffers_;
  std::vector<Active> active_;
};

class EmbeddingCopier : Copier {
 public:
  EmbeddingCopier(const CopyContext& context, const Pool& rank_pool)
      : Copier{context, rank_pool}, matcher_(rank_pool.request.targets) {}

  void copy(const Staged& entry) {
    const std::string* target = matcher_.find(entry.name);
    if (target == nullptr) return refuse_unmatched(c, entry, pool.request.targets);
    const auto buffer =
        std::find_if(pool.embeddings.begin(), pool.embeddings.end(),
                     [&](const EmbeddingBuffer& embedding) { return embedding.name == *target; });
    if (buffer == pool.embeddings.end()) return;
    if (buffer->name == "lm_head" && !c.wrapping.lm_head)
      return c.adapter.lose(entry.sources(), &cause::ignored_tensors,
                            "the model's class has no lm_head that LoRA finds: it is dropped");
    if (contains(entry.name, "lora_embedding_A") || contains(entry.name, "lora_A"))
      copy_a(*buffer, entry);
    else if (contains(entry.name, "lora_embedding_B") || contains(entry.name, "lora_B"))
      copy_b(*buffer, entry);
    else
      c.adapter.lose(entry.sources(), &cause::ignored_tensors,
                     "SGLang serves no saved module: it drops the tensor");
  }

 private:
  void copy_a(const EmbeddingBuffer& buffer, const Staged& a) {
    const Shape view = {std::min(c.adapter.r, buffer.a[0]), buffer.a[1]};
    emit(buffer, whole(a), view, true, 0);
  }

  // lm_head's rows beyond the tensor's stay zero; those of a rank's share of the vocabulary are cut
  // out of it only where there is more than one rank.
  void copy_b(const EmbeddingBuffer& buffer, const Staged& b) {
    Sliced sliced = whole(b);
    Shape view = {buffer.b[0], std::min(c.adapter.r, buffer.b[1])};
    int64_t first = 0;
    if (buffer.name == "lm_head" && b.rank() >= 1) {
      const int64_t rows = b.shape[0];
      if (pool.rank.tp > 1) {
        first = std::min(pool.vocab_first, rows);
        sliced.runs[0] = {first, std::min(pool.vocab_first + pool.vocab_count, rows) - first};
        sliced.shape[0] = sliced.runs[0].count;
      }
      view[0] = std::min(view[0], sliced.shape[0]);
      if (rows < c.model.config.vocab)
        c.adapter.add_event(
            &cause::shape_mismatch, Effect::partial,
            fmt::format("lora_B of lm_head has {} rows of {}: the others are served as zeros", rows,
                        c.model.config.vocab),
            b.sources());
    }
    emit(buffer, sliced, view, false, first);
  }

  void emit(const EmbeddingBuffer& buffer, const Sliced& sliced, const Shape& view, bool is_a,
            int64_t first) {
    if (!fits(view, sliced)) return;
    const Part parts[] = {{0, view[0], first}};
    const int64_t all_rows[] = {sliced.tensor->shape[0]};
    copy_rows(c.sink, sliced, at(buffer.name, is_a, sliced), parts, all_rows);
  }

  TargetMatcher matcher_;
};

}  // namespace

void load_to_buffer(const CopyContext& context, std::span<const Pool> pools, bool strict) {
  CpuAdapter& adapter = context.adapter;
  const NameSet& targets = pools.front().request.targets;
  const TargetMatcher matcher(targets);
  if (strict) refuse_skipped(adapter, targets, matcher, context.features);
  for (size_t layer = 0; layer < adapter.layers.size(); ++layer) {
    const TempBuffers buffers =
        sort_into_buffers(context, adapter.layers[layer], pools.front(), matcher);
    for (const Pool& pool : pools)
      LayerCopier(context, pool, static_cast<int>(layer), buffers).copy();
    check_pairs(context, pools.front(), static_cast<int>(layer), buffers);
  }
  for (const Pool& pool : pools) {
    EmbeddingCopier copier(context, pool);
    adapter.embeddings.each([&](const Staged& entry) { copier.copy(entry); });
  }
}

}  // namespace moelora::sglang
