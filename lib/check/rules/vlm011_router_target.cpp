#include "lib/check/define_rule.h"
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

}  // namespace

const Rule vlm011_router_target = {
    .id = "VLM011",
    .name = "vllm-router-target",
    .cause = &vllm::cause::router_target,
    .severity = Severity::warning,
    .engine = &engines::vllm,
    .what = "LoRA on a router that this class does not wrap.",
    .why =
        "GLM-4-MoE's router is a plain Linear before 0.31: \"expected target modules in {...} but "
        "received "
        "['...mlp.gate', ...]\". Nemotron-H passes the name and then skips the module with a "
        "debug line: its delta is dropped. Other classes apply LoRA to their router.",
    .fix =
        "Remove the router's tensors and its name from target_modules, or train without it "
        "(target_modules=\"all-linear\" includes it).",
    .remedy = Remedy::for_engine,
    .source =
        "vLLM lora/model_manager.py (mixer.gate); oracles glm4_moe/all_linear, "
        "nemotron_h/pe_router",
    .breaks = {.specimen = "nemotron_h_per_expert",
               .change = "add a pair on one router",
               .apply =
                   [](Specimen& specimen) {
                     add_pair(specimen, "backbone.layers.1.mixer.gate", 64, 4);
                   }},
    .implies = {"CFG005"},
    .check = check,
};

}  // namespace moelora
