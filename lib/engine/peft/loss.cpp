#include "lib/engine/peft/loss.h"

#include <fmt/format.h>

#include "lib/adapter/tensor_name.h"
#include "lib/engine/peft/causes.h"

namespace moelora::peft {
namespace {

class Explanation {
 public:
  Explanation(const Incoming& incoming, const Injected& into) : incoming_(incoming), into_(into) {}

  Loss run() const {
    const TensorName name = parse_tensor_name(incoming_.tensors.front());
    const auto expert = parse_expert_path(name.module);
    const bool routed = expert && is_routed(*expert);
    if (!routed || expert->form == ExpertPath::Form::parameters) return of_module(name, routed);
    const bool numbered = expert->form == ExpertPath::Form::numbered;
    if (!numbered || expert->projection == Projection::gate_up)
      return lost(cause::unread_name, "has a name of experts that PEFT does not know");
    if (!is_declared(name.module) && into_.declared.target_parameters.empty())
      return lost(cause::undeclared, "is not among the target_modules");
    if (incoming_.joined && into_.host.spec.peft.converts)
      return lost(cause::half_of_gate_up,
                  "goes to experts.base_layer, which is there only where gate, up and down are "
                  "all targeted");
    if (into_.host.has_numbered_experts() || (into_.host.rewrites_targets() && !incoming_.joined))
      return lost(cause::unread_name, fmt::format("is not what the experts of {} are called",
                                                  into_.host.spec.model_type));
    return lost(
        cause::family_not_mapped,
        fmt::format("names one expert; transformers {} holds the experts of {} in one "
                    "parameter, and PEFT {} does not convert adapters of this type",
                    into_.host.transformers, into_.host.spec.model_type, into_.host.peft.text()));
  }

 private:
  static Loss lost(const Cause& cause, std::string detail) { return {&cause, std::move(detail)}; }

  bool is_declared(const std::string& module) const {
    return into_.declared.target_regex ? true : ends_in_any(module, into_.declared.target_modules);
  }

  // Once PEFT has rewritten the list.
  bool is_kept(const std::string& module) const {
    return into_.config.target_regex ? true : ends_in_any(module, into_.config.target_modules);
  }

  bool is_routed(const ExpertPath& expert) const {
    const ModelSpec& spec = into_.host.spec;
    return expert.stem == spec.factor_stem(Form::hub) ||
           expert.stem == spec.factor_stem(Form::memory);
  }

  // Whether the same module in another spelling of the name would be found.
  bool is_misspelled(const TensorName& name) const {
    if (name.part != TensorPart::lora_a && name.part != TensorPart::lora_b) return false;
    const std::string side = name.part == TensorPart::lora_a ? "A" : "B";
    const size_t start = name.module.find("model.");
    const std::string path =
        start == std::string::npos || into_.modules.find(name.module) != nullptr
            ? name.module
            : name.module.substr(start);
    const std::string key = fmt::format("{}.lora_{}.default.weight", path, side);
    return key != incoming_.key && into_.wrapped.find(key) != nullptr;
  }

  Loss of_module(const TensorName& name, bool routed) const {
    if (is_misspelled(name))
      return lost(cause::unread_name,
                  "is read as the name of another thing, which this model does not have");
    const bool known = into_.host.spec.find_linear(name.module) != nullptr;
    if (name.part == TensorPart::other && known)
      return lost(cause::unread_name, "names a parameter that PEFT has moved to base_layer");
    const bool there = known && into_.modules.find(name.module) != nullptr;
    if (there && into_.config.takes_targets && is_declared(name.module) && !is_kept(name.module))
      return lost(cause::targets_taken,
                  "is lost: PEFT takes the names of the routed experts' projections out of "
                  "target_modules, whatever else they name");
    if (there && is_declared(name.module) && into_.wrapped.layers.count(name.module) == 0)
      return lost(cause::undeclared,
                  "is among the target_modules, but exclude_modules, modules_to_save or "
                  "layers_to_transform keep its module out");
    if (there && into_.wrapped.layers.count(name.module) != 0)
      return lost(cause::undeclared,
                  "belongs to what the config does not switch on (lora_bias, use_dora)");
    if (!known && !routed && name.part != TensorPart::other)
      return lost(cause::no_such_module, fmt::format("transformers {} has no module of this name",
                                                     into_.host.transformers));
    if (routed && into_.host.has_numbered_experts())
      return lost(cause::undeclared,
                  fmt::format("transformers {} holds a Linear for each expert, not a parameter",
                              into_.host.transformers));
    return lost(cause::undeclared,
                routed ? "is not among the target_parameters" : "is not among the target_modules");
  }
  const Incoming& incoming_;
  const Injected& into_;
};

}  // namespace

Loss why_lost(const Incoming& incoming, const Injected& into) {
  return Explanation(incoming, into).run();
}

}  // namespace moelora::peft
