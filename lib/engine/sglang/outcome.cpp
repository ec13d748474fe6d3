#include "lib/engine/sglang/outcome.h"

#include <fmt/format.h>

#include <algorithm>

#include "lib/engine/sglang/causes.h"
#include "lib/engine/sglang/copy/copied_values.h"
#include "lib/engine/sglang/names.h"

namespace moelora::sglang {
namespace {

// PEFT saves the base's own weight beside the factors of an embedding: it is no loss.
bool is_base_copy(const Source& source) { return source.name.ends_with(".base_layer.weight"); }

class FateFinder {
 public:
  FateFinder(Server& server, size_t index)
      : server_(server),
        adapter_(server.mutable_adapter(index)),
        copied_(server.copied(index)),
        any_refused_(std::find(adapter_.outcome.refused.begin(), adapter_.outcome.refused.end(),
                               true) != adapter_.outcome.refused.end()) {}

  std::vector<TensorFate> find() {
    std::vector<TensorFate> out;
    out.reserve(adapter_.sources.size());
    for (size_t i = 0; i < adapter_.sources.size(); ++i) {
      const auto id = static_cast<int32_t>(i);
      const Source& source = adapter_.sources[i];
      const Fate fate = fate_of(id);
      out.push_back({source.name, adapter_.files[source.file], fate,
                     copied_ != nullptr ? copied_->buffer(id) : ""});
    }
    mark_partial(out);
    return out;
  }

 private:
  Fate fate_of(int32_t id) {
    const auto at = static_cast<size_t>(id);
    if (copied_ == nullptr || adapter_.is_refused(id) || is_partner_refused(id))
      return Fate::refused;
    const CpuAdapter::Loss& loss = adapter_.outcome.lost[at];
    if (is_base_copy(adapter_.sources[at])) return Fate::unused;
    if (loss.cause != nullptr) return unused(id, loss.cause, loss.detail);
    if (is_empty(adapter_.sources[at].shape)) return Fate::used;
    if (!copied_->is_copied(id)) return not_written(id);
    if (copied_->is_misplaced(id)) return cut(id, Effect::misplaced, Fate::misplaced);
    if (!copied_->is_whole(id)) return cut(id, Effect::cut, Fate::cut);
    return Fate::used;
  }

  // One factor stands for the pair.
  bool is_partner_refused(int32_t id) const {
    if (!any_refused_) return false;
    const int32_t partner = adapter_.partner_of(id);
    return partner >= 0 && adapter_.is_refused(partner);
  }

  Fate unused(int32_t id, const Cause* cause, std::string_view detail) {
    adapter_.add_event(cause, Effect::unused, std::string(detail), {id});
    return Fate::unused;
  }

  // No buffer that a layer reads takes it.
  Fate not_written(int32_t id) {
    const Source& source = adapter_.sources[static_cast<size_t>(id)];
    const bool routed = contains(source.name, "experts.") && !contains(source.name, "shared_exp");
    if (!routed)
      return unused(id, &cause::ignored_tensors,
                    "the model's class has no such module in this layer: it is dropped");
    const bool both =
        server_.targets().count("gate_up_proj") != 0 && server_.targets().count("down_proj") != 0;
    if (server_.model().has_moe && !both)
      return unused(id, &cause::one_sided_experts,
                    "experts are adapted only where gate/up and down both are targets");
    if (!server_.model().has_moe || !layer_has_experts(source.name))
      return unused(id, &cause::ignored_tensors,
                    "expert tensors of a layer without experts are dropped");
    return unused(id, &cause::expert_out_of_range, "no rank has an expert of this number");
  }

  bool layer_has_experts(std::string_view name) const {
    const auto layer = layer_of(name);
    for (const WrappedModule& wrapped : server_.wrapping().layers[static_cast<size_t>(*layer)])
      if (wrapped.module->kind == LayerKind::fused_moe) return true;
    return false;
  }

  Fate cut(int32_t id, Effect effect, Fate fate) {
    const Source& source = adapter_.sources[static_cast<size_t>(id)];
    EventLog::Event& event = adapter_.outcome.events.event(&cause::silent_truncation, effect);
    if (event.is_new())
      event.detail =
          effect == Effect::cut
              ? fmt::format("its shape {} exceeds the layer's, and SGLang cuts it without a word",
                            to_string(source.shape))
              : "its rows land where another part's belong, because the part before it is too "
                "large";
    event.sources.push_back(id);
    return fate;
  }

  // Whole, but less than the buffer that it is for.
  void mark_partial(std::vector<TensorFate>& fates) const {
    for (const EventLog::Event& event : adapter_.outcome.events.events()) {
      if (event.effect != Effect::partial) continue;
      for (int32_t id : event.sources) {
        TensorFate& fate = fates[static_cast<size_t>(id)];
        const bool stack = adapter_.sources[static_cast<size_t>(id)].shape.size() == 3;
        if (fate.fate == Fate::used && (stack || fate.buffer.starts_with("lm_head")))
          fate.fate = Fate::partial;
      }
    }
  }

  Server& server_;
  CpuAdapter& adapter_;
  const CopiedValues* copied_;
  bool any_refused_;
};

}  // namespace

std::vector<TensorFate> tensor_fates(Server& server, size_t index) {
  return FateFinder(server, index).find();
}

}  // namespace moelora::sglang
