#include <fmt/format.h>

#include "lib/check/define_rule.h"
#include "lib/check/rule_context.h"
#include "lib/engine/sglang/causes.h"

namespace moelora {
namespace {

bool has_shared_experts(const ModelSpec& spec) {
  for (const LinearSpec& linear : spec.linears)
    if (linear.role == Role::shared_expert) return true;
  return false;
}

bool before(const RuleContext& context, std::string_view release) {
  const EngineChoice& choice = context.run().choice;
  return !choice.version.has(choice.engine->release(release));
}

// Flags that expert LoRA of this base needs and the options do not have.
std::vector<std::string_view> missing_flags(const RuleContext& context) {
  const ServerOptions& options = context.options();
  std::vector<std::string_view> out;
  if (before(context, "0.5.12") && options.text("lora-backend").empty())
    out.push_back("--lora-backend triton");
  if (context.spec()->family == "gpt_oss" && options.text("moe-runner-backend").empty())
    out.push_back("--moe-runner-backend triton");
  if (has_shared_experts(*context.spec()) && !options.on("disable-shared-experts-fusion"))
    out.push_back("--disable-shared-experts-fusion");
  return out;
}

void check(RuleContext& context) {
  context.explain_plan(
      [](Finding& finding, const PlanEvent&) { finding.severity = Severity::error; });
  if (context.spec() == nullptr || context.subject().experts.empty()) return;
  const auto flags = missing_flags(context);
  if (!flags.empty())
    context.report(fmt::format("its experts are served with {}", fmt::join(flags, " ")));
}

}  // namespace

const Rule sgl024_server_options = {
    .id = "SGL024",
    .name = "server-options",
    .cause = &sglang::cause::server_options,
    .severity = Severity::information,
    .engine = &engines::sglang,
    .what =
        "Options that the server needs for this adapter; an error where one is given that does it "
        "harm.",
    .why =
        "Before 0.5.12 expert LoRA needs --lora-backend triton; GPT-OSS picks --moe-runner-backend "
        "triton_kernel by itself, which has no LoRA; fusing shared experts into the routed ones "
        "changes their number. --lora-target-modules that lack a module of the adapter refuse it. "
        "--enable-fused-moe-sum-all-reduce loses the delta of down_proj wherever a token goes to "
        "more than two experts, without a word.",
    .fix = "Start the server with these options.",
    .source = "SGLang docs; PR 21375; lora/lora_manager.py, init_lora_shapes",
    .breaks = {.specimen = "gpt_oss_stacked",
               .change = "nothing: GPT-OSS needs --moe-runner-backend triton"},
    .check = check,
};

}  // namespace moelora
