#include "lib/engine/sglang/copy/load_to_buffer.h"

#include <fmt/format.h>

#include <algorithm>

#include "lib/engine/sglang/causes.h"
#include "lib/engine/sglang/copy/copier.h"
#include "lib/engine/sglang/copy/copy_rows.h"
#include "lib/engine/sglang/copy/temp_buffers.h"
#include "lib/engine/sglang/load/diagnosis.h"
#include "lib/engine/sglang/names.h"

namespace moelora::sglang {
namespace {

// --lora-strict-loading: what no target takes is refused before anything is copied.
void refuse_skipped(CpuAdapter& adapter, const NameSet& targets, const TargetMatcher& matcher,
                    const Features& features) {
  NameSet skipped;
  std::vector<const Staged*> entries;
  const auto look = [&](LayerWeights& weights) {
    for (size_t i = 0; i < weights.count(); ++i) {
      const Staged* entry = weights.at(i);
      if (entry == nullptr || matcher.find(entry->name) >= 0) continue;
      entries.push_back(entry);
      skipped.insert(in_text(entry->name));
    }
  };
  for (LayerWeights& weights : adapter.layers) look(weights);
  look(adapter.embeddings);
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

class LayerCopier {
 public:
  LayerCopier(const CopyContext& context, const Pool& pool, int layer, const TempBuffers& buffers)
      : c_(context), pool_(pool), buffers_(buffers), copier_{context, pool, layer} {}

  // All A first.
  void copy() {
    for (const WrappedModule& wrapped : c_.wrapping.layers[static_cast<size_t>(copier_.layer)])
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
    Active active{pool_.index_of(wrapped.buffer), wrapped.module};
    if (active.buffer < 0) return;  // refused at start-up
    const TempBuffer &a = buffers_.of(active.buffer, true), &b = buffers_.of(active.buffer, false);
    active.has_a = !a.is_none();
    if (wrapped.module->kind != LayerKind::fused_moe && a.tensor != nullptr && b.is_none()) {
      refuse_lone_a(*wrapped.module, *a.tensor);
      active.refused = true;
    }
    if (c_.model.interleaved && wrapped.buffer == "gate_up_proj_moe")
      for (const Staged* staged : b.all()) {
        const Sliced sliced =
            slice_moe_b(c_.model, c_.features, wrapped.buffer, *staged, pool_.rank);
        if (!sliced.error_type.empty()) refuse_slice(c_, pool_, sliced);
      }
    active_.push_back(active);
  }

  // A factor whose B is there, but was refused before, is known already.
  void refuse_lone_a(const ClassModule& module, const Staged& a) {
    std::vector<int32_t> alone;
    for (int32_t source : a.sources()) {
      if (c_.adapter.partner_of(source) < 0) alone.push_back(source);
      c_.adapter.refuse(source);
    }
    if (alone.empty()) return;
    const bool indexed =
        module.kind != LayerKind::row && module.kind != LayerKind::replicated && slices();
    c_.adapter.raise({&cause::orphan_factor, stage::kLoad, indexed ? "TypeError" : "AssertionError",
                      indexed ? "'NoneType' object is not subscriptable" : "",
                      fmt::format("{} has lora_A and no lora_B", module.leaf()), true},
                     alone);
  }

  void copy_side(const Active& active, bool is_a) {
    const Buffer& buffer = pool_.buffers[static_cast<size_t>(active.buffer)];
    if (buffer.moe) return copy_experts(copier_, buffers_, active.buffer, is_a);
    const Staged* staged = buffers_.of(active.buffer, is_a).tensor;
    if (staged == nullptr) return;
    if (is_a)
      copy_dense_a(active, buffer, *staged);
    else
      copy_dense_b(active, buffer, *staged);
  }

  bool slices() const { return c_.features.slices_always || pool_.rank.tp > 1; }

  void copy_dense_a(const Active& active, const Buffer& buffer, const Staged& a) {
    const Shape& shape = copier_.shape_of(buffer, true);
    const int64_t r = c_.adapter.r, rows = std::min(r * buffer.stacked, shape[0]);
    const Sliced sliced = slices() ? slice_dense_a(*active.module, a, pool_.rank) : whole(a);
    if (!copier_.fits({rows, shape[1]}, sliced)) return;
    const Write write = copier_.at(buffer, true, sliced);
    const std::vector<int64_t> each(static_cast<size_t>(buffer.stacked), r);
    std::vector<Part> parts;
    for (int i = 0; i < buffer.stacked; ++i) parts.push_back({i, r, 0});
    copy_rows(c_.sink, sliced, write, parts, each);
  }

  void copy_dense_b(const Active& active, const Buffer& buffer, const Staged& b) {
    const Shape& shape = copier_.shape_of(buffer, false);
    const bool cut = active.has_a && slices();
    const Sliced sliced =
        cut ? slice_dense_b(*active.module, c_.model.config, b, pool_.rank) : whole(b);
    if (!copier_.fits({shape[0], std::min(c_.adapter.r, shape[1])}, sliced)) return;
    const Write write = copier_.at(buffer, false, sliced);
    std::vector<Part> parts;
    for (const Span& share : shares_of(*active.module, c_.model.config, pool_.rank))
      parts.push_back({static_cast<int>(parts.size()), share.count, share.first});
    copy_rows(c_.sink, sliced, write, parts, active.module->out);
  }

  const CopyContext& c_;
  const Pool& pool_;
  const TempBuffers& buffers_;
  Copier copier_;
  std::vector<Active> active_;
};

class EmbeddingCopier {
 public:
  EmbeddingCopier(const CopyContext& context, const Pool& pool)
      : c_(context), pool_(pool), matcher_(pool.request.targets) {}

  void copy() {
    LayerWeights& all = c_.adapter.embeddings;
    for (size_t i = 0; i < all.count(); ++i)
      if (const Staged* entry = all.at(i)) copy(*entry);
  }

 private:
  void copy(const Staged& entry) {
    const int target = matcher_.find(entry.name);
    if (target < 0) return refuse_unmatched(c_, entry, pool_.request.targets);
    const std::string& module = matcher_.targets()[static_cast<size_t>(target)];
    const EmbeddingBuffer* buffer = find(module);
    if (buffer == nullptr || !contains(entry.name, module)) return;
    if (contains(entry.name, "lora_embedding_A") || contains(entry.name, "lora_A"))
      copy_a(*buffer, entry);
    else if (contains(entry.name, "lora_embedding_B") || contains(entry.name, "lora_B"))
      copy_b(*buffer, entry);
    else
      c_.adapter.lose(entry.sources(), &cause::ignored_tensors,
                      "SGLang serves no saved module: it drops the tensor");
  }

  const EmbeddingBuffer* find(std::string_view module) const {
    for (const EmbeddingBuffer& buffer : pool_.embeddings)
      if (buffer.name == module) return &buffer;
    return nullptr;
  }

  void copy_a(const EmbeddingBuffer& buffer, const Staged& a) {
    const Shape view = {std::min(c_.adapter.r, buffer.a[0]), buffer.a[1]};
    emit(buffer, whole(a), view, true, 0);
  }

  // lm_head's rows beyond the tensor's stay zero; those of a rank's share of the vocabulary are cut
  // out of it only where there is more than one rank.
  void copy_b(const EmbeddingBuffer& buffer, const Staged& b) {
    Sliced sliced = whole(b);
    Shape view = {buffer.b[0], std::min(c_.adapter.r, buffer.b[1])};
    int64_t first = 0;
    if (buffer.name == "lm_head" && b.rank() >= 1) {
      const int64_t rows = b.shape[0];
      if (pool_.rank.tp > 1) {
        first = std::min(pool_.vocab_first, rows);
        sliced.runs[0] = {first, std::min(pool_.vocab_first + pool_.vocab_count, rows) - first};
        sliced.shape[0] = sliced.runs[0].count;
      }
      view[0] = std::min(view[0], sliced.shape[0]);
      if (rows < c_.model.config.vocab)
        c_.adapter.add_event(
            &cause::shape_mismatch, Effect::partial,
            fmt::format("lora_B of lm_head has {} rows of {}: the others are served as zeros", rows,
                        c_.model.config.vocab),
            b.sources());
    }
    emit(buffer, sliced, view, false, first);
  }

  void emit(const EmbeddingBuffer& buffer, const Sliced& sliced, const Shape& view, bool is_a,
            int64_t first) {
    if (!fits(c_, pool_, view, sliced)) return;
    Write write;
    write.buffer = buffer.name;
    write.is_a = is_a;
    write.columns = sliced.columns.count;
    const Part parts[] = {{0, view[0], first}};
    const int64_t all_rows[] = {sliced.tensor->shape[0]};
    copy_rows(c_.sink, sliced, write, parts, all_rows);
  }

  const CopyContext& c_;
  const Pool& pool_;
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
  for (const Pool& pool : pools) EmbeddingCopier(context, pool).copy();
}

}  // namespace moelora::sglang
