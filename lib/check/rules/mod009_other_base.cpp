#include <fmt/core.h>

#include "lib/base/utf8.h"
#include "lib/check/define_rule.h"
#include "lib/check/rule_context.h"
#include "lib/model/base_model.h"

namespace moelora {
namespace {

bool is_bitsandbytes(const std::string& name) {
  return name.find("bnb-4bit") != std::string::npos || name.find("bnb-8bit") != std::string::npos ||
         name.find("-4bit") != std::string::npos;
}

// In what two models differ, as far as it matters to adapters; "" for nothing.
std::string difference(const ModelSpec& named, const ModelSpec& given) {
  const auto differ = [](std::string_view what, int64_t a, int64_t b) {
    return a == b ? "" : fmt::format("{} {} there, {} here", what, a, b);
  };
  if (named.family != given.family)
    return fmt::format("{} there, {} here", named.family, given.family);
  for (std::string text : {differ("layers", named.layers, given.layers),
                           differ("hidden size", named.hidden, given.hidden),
                           differ("experts", named.experts, given.experts),
                           differ("expert size", named.intermediate, given.intermediate)})
    if (!text.empty()) return text;
  return "";
}

// Of a name that may be anything.
std::optional<BaseModel> known_base(const std::string& name) try {
  return find_named_base(name, {}, false);
} catch (const Error&) {
  return std::nullopt;
}

void check(RuleContext& context) {
  const Subject& subject = context.subject();
  if (!subject.parsed_config || subject.parsed_config->base_model.empty()) return;
  const std::string& name = subject.parsed_config->base_model;
  if (const auto named = known_base(name))
    if (const std::string what = difference(named->spec, *context.spec()); !what.empty())
      context.report_config("base_model_name_or_path",
                            fmt::format("is {}, another model than {}: {}", in_quotes(name),
                                        context.deployment().base->origin, what));
  if (is_bitsandbytes(name))
    context.report_config(
        "base_model_name_or_path",
        fmt::format("is {}, a bitsandbytes copy: the adapter was trained against its rounding, and "
                    "vLLM has no LoRA for MoE models of that kind",
                    in_quotes(name)));
}

}  // namespace

const Rule mod009_other_base = {
    .id = "MOD009",
    .name = "other-base",
    .severity = Severity::warning,
    .needs_base = true,
    .what = "base_model_name_or_path is another model than the one given, or a bitsandbytes copy.",
    .why =
        "No server looks at this key. An adapter of another model of the same shapes loads and "
        "answers nonsense.",
    .fix = "Serve the model that the adapter was trained on, or name it with --base.",
    .source = "vLLM issue 29138; peft LoraConfig",
    .breaks = {.change = "name Qwen/Qwen3-30B-A3B as the base model of an adapter of a tiny one",
               .config = {{"base_model_name_or_path", R"("Qwen/Qwen3-30B-A3B")"}}},
    .check = check,
};

}  // namespace moelora
