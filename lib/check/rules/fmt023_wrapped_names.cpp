#include <fmt/core.h>

#include "lib/check/define_rule.h"
#include "lib/check/engine_findings.h"
#include "lib/check/name_groups.h"
#include "lib/check/rule_context.h"

namespace moelora {
namespace {

void check(RuleContext& context) {
  const auto fault = [](const NamedTensor& tensor) -> std::string {
    const std::string_view wrapper = wrapper_in(tensor.name);
    if (wrapper.empty()) return "";
    return fmt::format("holds what {} wraps modules in: no model has a module of this name",
                       wrapper);
  };
  report_tensors(context, fault, downgrade_if_served);
}

}  // namespace

const Rule fmt023_wrapped_names = {
    .id = "FMT023",
    .name = "wrapped-names",
    .what =
        "Names hold a wrapper of training: _orig_mod, module, _fsdp_wrapped_module or "
        "_checkpoint_wrapped_module.",
    .why =
        "The state of a wrapped model was saved, not that of the model: PEFT reports missing and "
        "unexpected keys and starts these modules anew, vLLM drops or refuses them.",
    .fix = "In training, unwrap the model before it is saved (accelerator.unwrap_model).",
    .remedy = Remedy::rewrite,
    .source = "torch.compile, DDP, FSDP; PEFT 0.21.2, run",
    .breaks = {.change = "write _orig_mod. in front of the model's modules",
               .engine = "peft",
               .apply =
                   [](Specimen& specimen) {
                     rename_tensors(specimen, "base_model.model.", "base_model.model._orig_mod.");
                   }},
    .implies = {"PFT002"},
    .check = check,
};

}  // namespace moelora
