#include <fmt/format.h>

#include "lib/check/define_rule.h"
#include "lib/check/rule_context.h"
#include "lib/check/specimen.h"

namespace moelora {
namespace {

// Paths of the adapters whose experts are stacked, and of those with a pair an expert.
struct Kinds {
  std::vector<std::string> stacked, numbered;
};

Kinds kinds_of(const std::vector<Subject>& adapters) {
  Kinds out;
  for (const Subject& subject : adapters) {
    if (subject.layout == nullptr) continue;
    if (subject.layout->one_parameter) out.stacked.push_back(subject.given);
    if (subject.layout->numbered) out.numbered.push_back(subject.given);
  }
  return out;
}

// The first adapter that the server refuses, in its words.
std::string refusal_of(const EngineRun& run) {
  if (!run.plan) return "";
  for (const AdapterPlan& plan : run.plan->adapters)
    if (const PlanEvent* event = plan.first_refusal()) return refusal_text(*event->refusal);
  return "";
}

void check(RuleContext& context) {
  if (context.options().on("enable-mixed-moe-lora-format")) return;
  const Kinds kinds = kinds_of(context.deployment().adapters);
  if (kinds.stacked.empty() || kinds.numbered.empty()) return;
  context
      .report(fmt::format("{} {} stacked, {} {} one pair an expert; without the mixed format a "
                          "server takes one of the two",
                          fmt::join(kinds.stacked, ", "), kinds.stacked.size() == 1 ? "is" : "are",
                          fmt::join(kinds.numbered, ", "),
                          kinds.numbered.size() == 1 ? "has" : "have"))
      .server_text = refusal_of(context.run());
}

}  // namespace

const Rule set003_mixed_2d_3d = {
    .id = "SET003",
    .name = "mixed-2d-3d",
    .engine = &engines::vllm,
    .whole_deployment = true,
    .what = "Stacked and per-expert adapters are given to one server without the mixed format.",
    .why =
        "A model class wraps its experts for one of the two layouts and refuses the other at its "
        "name gate or with a bare AssertionError. --enable-mixed-moe-lora-format (0.22) lets a "
        "stacked class take both, where each adapter says is_3d_lora_weight.",
    .fix =
        "Start the server with --enable-mixed-moe-lora-format, or serve the two layouts by two "
        "servers.",
    .remedy = Remedy::for_engine,
    .source = "vLLM PR 42242; issues 38520 and 40005",
    .breaks = {.specimen = "gpt_oss_stacked_params",
               .change = "serve a per-expert adapter beside it",
               .apply =
                   [](Specimen& specimen) {
                     Subject other = specimen.adapter();
                     other.given = other.folder = "other";
                     TensorMap& tensors = other.files.front().tensors;
                     std::erase_if(tensors, [](const auto& entry) {
                       return entry.first.find(".experts.") != std::string::npos;
                     });
                     for (int layer : {0, 1})
                       for (int e = 0; e < 4; ++e) {
                         const std::string stem = fmt::format(
                             "base_model.model.model.layers.{}.mlp.experts.{}.", layer, e);
                         for (const char* up : {"gate_proj", "up_proj"}) {
                           tensors[stem + up + ".lora_A.weight"] = specimen.random({4, 64});
                           tensors[stem + up + ".lora_B.weight"] = specimen.random({48, 4});
                         }
                         tensors[stem + "down_proj.lora_A.weight"] = specimen.random({4, 48});
                         tensors[stem + "down_proj.lora_B.weight"] = specimen.random({64, 4});
                       }
                     specimen.adapters.push_back(std::move(other));
                   }},
    .implies = {"VLM001"},
    .check = check,
};

}  // namespace moelora
