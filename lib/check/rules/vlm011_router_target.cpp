#include <array>

#include "lib/check/example_edits.h"
#include "lib/check/rule_context.h"
#include "lib/engine/vllm/causes.h"

namespace moelora {
namespace {

// Refused is an error, passed over a warning.
void check(RuleContext& context) {
  context.explain_plan([](Finding& finding, const PlanEvent& event) {
    if (event.refusal) finding.severity = Severity::error;
  });
}

constexpr std::array<std::string_view, 1> kImplies = {"CFG005"};

}  // namespace

extern const Rule vlm011_router_target;
const Rule vlm011_router_target = {
    .id = "VLM011",
    .name = "vllm-router-target",
    .cause = &vllm::cause::router_target,
    .severity = Severity::warning,
    .engine = &engines::vllm,
    .needs_base = true,
    .what = "LoRA on a router that this class does not wrap.",
    .why =
        "GLM-4-MoE's router is a plain Linear: \"expected target modules in {...} but received "
        "['...mlp.gate', ...]\". Nemotron-H passes the name and then skips the module with a "
        "debug line: its delta is dropped. Other classes apply LoRA to their router.",
    .fix =
        "Remove the router's tensors and its name from target_modules, or train without it "
        "(target_modules=\"all-linear\" includes it).",
    .source =
        "vLLM lora/model_manager.py (mixer.gate); oracles glm4_moe/all_linear, "
        "nemotron_h/pe_router",
    .breaks = {.specimen = "nemotron_h_per_expert",
               .change = "add a pair on one router",
               .engine = "vllm",
               .apply =
                   [](Specimen& specimen) {
                     const std::string router =
                         "base_model.model.backbone.layers.1.mixer.gate.lora_";
                     set_tensor(specimen, router + "A.weight", {4, 64});
                     set_tensor(specimen, router + "B.weight", {4, 4});
                   }},
    .implies = kImplies,
    .check = check,
};

}  // namespace moelora
