#include <fmt/core.h>

#include <algorithm>
#include <array>

#include "lib/check/define_rule.h"
#include "lib/check/rule_context.h"

namespace moelora {
namespace {

constexpr std::array<std::string_view, 5> kMutating = {"pissa", "olora", "corda", "lora_ga",
                                                       "loftq"};

void check(RuleContext& context) {
  const auto& config = context.subject().parsed_config;
  if (!config) return;
  const std::string& init = config->init_lora_weights;
  if (std::any_of(kMutating.begin(), kMutating.end(),
                  [&](std::string_view name) { return init.starts_with(name); }))
    context.report_config("init_lora_weights",
                          fmt::format("is \"{}\": training changed the base weights before it "
                                      "began, and B·A is not a delta to the hub's",
                                      init));
}

}  // namespace

const Rule cfg004_mutated_base_init = {
    .id = "CFG004",
    .name = "mutated-base-init",
    .what = "init_lora_weights is PiSSA, OLoRA, CorDA, LoRA-GA or LoftQ.",
    .why =
        "These take part of every base weight into A and B, or quantize it, and train on what "
        "is left. A server that adds B·A to the hub's weights adds that part twice, and no "
        "server looks at this key.",
    .fix =
        "Convert it with PEFT on the machine that trained: save_pretrained(..., "
        "path_initial_model_for_weight_conversion=INITIAL); or serve the residual base model.",
    .source = "peft docs, PiSSA: convert to LoRA",
    .breaks = {.change = "say \"init_lora_weights\": \"pissa_niter_16\"",
               .config = {{"init_lora_weights", R"("pissa_niter_16")"}}},
    .check = check,
};

}  // namespace moelora
