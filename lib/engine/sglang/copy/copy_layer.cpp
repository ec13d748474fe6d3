#include "lib/engine/sglang/copy/copy_layer.h"

#include <fmt/format.h>

#include <algorithm>

#include "lib/engine/sglang/causes.h"
#include "lib/engine/sglang/copy/copy_experts.h"
#include "lib/engine/sglang/copy/copy_rows.h"
#include "lib/engine/sglang/model/hidden_dim.h"

namespace moelora::sglang {
namespace {

class LayerCopier {
 public:
  LayerCopier(const CopyContext& context, const Pool& pool, int layer, const LayerBuckets& buckets)
      : c_(context), pool_(pool), layer_(layer), buckets_(buckets), copier_{context, pool, layer} {}

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
        const Sliced sliced =
            slice_moe_b(c_.model, c_.features, wrapped.buffer, *staged, pool_.rank);
        if (!sliced.error_type.empty()) copier_.refuse_slice(sliced);
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
    c_.adapter.raise({&cause::orphan_factor, stage::kLoad, indexed ? "TypeError" : "AssertionError",
                      indexed ? "'NoneType' object is not subscriptable" : "",
                      fmt::format("{} has lora_A and no lora_B", module.leaf()), true},
                     alone);
  }

  void copy_a(const Active& active) {
    if (active.refused) return;
    const Buffer& buffer = buffer_of(active);
    if (buffer.moe) return copy_experts(copier_, buckets_, buffer, true);
    if (const Staged* a = a_of(active).tensor) copy_dense_a(active, buffer, *a);
  }

  void copy_b(const Active& active) {
    if (active.refused) return;
    const Buffer& buffer = buffer_of(active);
    if (buffer.moe) return copy_experts(copier_, buckets_, buffer, false);
    if (const Staged* b = b_of(active).tensor) copy_dense_b(active, buffer, *b);
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
  int layer_;
  const LayerBuckets& buckets_;
  Copier copier_;
  std::vector<Active> active_;
};

}  // namespace

void copy_layer(const CopyContext& context, const Pool& pool, int layer,
                const LayerBuckets& buckets) {
  LayerCopier(context, pool, layer, buckets).copy();
}

}  // namespace moelora::sglang
