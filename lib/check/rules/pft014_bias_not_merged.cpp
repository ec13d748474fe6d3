#include <fmt/core.h>

#include "lib/adapter/tensor_name.h"
#include "lib/check/define_rule.h"
#include "lib/check/rule_context.h"

namespace moelora {
namespace {

// Loaded whole, so the plan has no event: only merging fails.
void check(RuleContext& context) {
  const AdapterPlan* plan = context.plan();
  const Subject& subject = context.subject();
  if (plan == nullptr || plan->first_refusal() != nullptr || !subject.parsed_config ||
      !subject.parsed_config->lora_bias)
    return;
  std::vector<std::string> names;
  for (const TensorFate& fate : plan->fates) {
    if (fate.fate != Fate::used || !fate.tensor.ends_with(".lora_B.bias")) continue;
    const LinearSpec* linear = context.spec()->find_linear(parse_tensor_name(fate.tensor).module);
    if (linear != nullptr && !linear->bias) names.push_back(fate.tensor);
  }
  if (names.empty()) return;
  const std::string biases =
      names.size() == 1 ? "is a bias" : fmt::format("are {} biases", names.size());
  const std::string message = biases +
                              " of lora_B on modules without a bias of their own: PEFT computes "
                              "them and cannot merge them";
  context.report(std::move(names), message);
}

}  // namespace

const Rule pft014_bias_not_merged = {
    .id = "PFT014",
    .name = "bias-not-merged",
    .severity = Severity::information,
    .engine = &engines::peft,
    .needs_base = true,
    .what = "lora_bias on modules whose base layer has no bias.",
    .why =
        "PEFT loads and computes it; merge_and_unload stops: \"Impossible to merge LoRA with "
        "`lora_bias=True` because the base layer has no bias.\"",
    .fix = "Serve the adapter without merging it, or train with lora_bias=False.",
    .source = "peft tuners/lora/layer.py Linear.merge; oracles/peft.md, form attn_lora_bias",
    .breaks = {.change = "leave q_proj alone, with lora_bias",
               .config = {{"target_modules", R"(["q_proj"])"}, {"lora_bias", "true"}},
               .apply =
                   [](Specimen& specimen) {
                     for (const std::string_view leaf : {"k_proj", "v_proj", "o_proj", "experts"})
                       remove_tensors(specimen, leaf);
                     for (const char* layer : {"0", "1"})
                       set_tensor(specimen,
                                  fmt::format("base_model.model.model.layers.{}.self_attn.q_proj"
                                              ".lora_B.bias",
                                              layer),
                                  {64});
                   }},
    .check = check,
};

}  // namespace moelora
