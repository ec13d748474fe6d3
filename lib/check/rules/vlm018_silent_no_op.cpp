#include <algorithm>

#include "lib/adapter/names/text_names.h"
#include "lib/check/define_rule.h"
#include "lib/check/rule_context.h"
#include "lib/engine/vllm/causes.h"

namespace moelora {
namespace {

void check(RuleContext& context) {
  context.explain_plan([](Finding& finding, const PlanEvent& event) {
    if (!std::any_of(event.tensors.begin(), event.tensors.end(), is_in_tower)) return;
    finding.message = "is of the vision or audio tower: " + finding.message;
  });
}

}  // namespace

const Rule vlm018_silent_no_op = {
    .id = "VLM018",
    .name = "silent-no-op",
    .cause = &vllm::cause::silent_no_op,
    .engine = &engines::vllm,
    .what = "Tensors whose names pass the gate and that no module of the model takes.",
    .why =
        "After the name gate nothing checks that a module was used: names of another wrapper "
        "(model.language_model., model.layers without it), of layers that are not there or of "
        "dense layers are loaded and dropped. The server answers as the base model does; requests "
        "to warn were closed unmerged (34803, 39278, 34964). Since 0.33 a multimodal wrapper takes "
        "its "
        "text model's own names (model.layers).",
    .fix =
        "Rename the tensors to the modules of this class, or train on the model that is served; a "
        "module in the file twice needs one of the two removed.",
    .remedy = Remedy::for_engine,
    .source = "vLLM issues 34186, 39278, 55193",
    .breaks = {.change = "move q_proj of one layer to a path that is not there",
               .apply =
                   [](Specimen& specimen) {
                     rename_tensors(specimen, "layers.1.self_attn.q_proj", "layers.1.mlp.q_proj");
                   }},
    .implies = {"MOD001"},
    .check = check,
};

}  // namespace moelora
