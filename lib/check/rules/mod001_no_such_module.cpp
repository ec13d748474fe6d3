#include <fmt/core.h>

#include "lib/base/utf8.h"
#include "lib/check/define_rule.h"
#include "lib/check/engine_findings.h"
#include "lib/check/name_groups.h"
#include "lib/check/rule_context.h"
#include "lib/check/subject/base_modules.h"
#include "lib/engine/cause.h"
#include "lib/model/base_model.h"

namespace moelora {
namespace {

bool has_other_towers(const Json& config) {
  for (std::string_view key : {"vision_config", "audio_config"})
    if (config.find(key) != nullptr) return true;
  return false;
}

constexpr std::string_view kLayer = "layers.{n}.";

// Below "layers.N."; the whole path without such a part.
std::string below_number(const std::string& pattern) {
  const size_t at = pattern.find(kLayer);
  return at == std::string::npos ? pattern : pattern.substr(at + kLayer.size());
}

// What is wrong with the path, as far as many names have it in common: the wrapper's prefix, the
// block below the layer, or the name itself.
std::string suggestion(const std::string& module, const std::string& nearest) {
  if (nearest.empty()) return "";
  const std::string known = without_numbers(nearest), found = without_numbers(module);
  const size_t layer = known.find(kLayer), dot = known.rfind('.');
  if (layer != std::string::npos && below_number(known) == below_number(found))
    return fmt::format(", whose layers are {}",
                       printable(known.substr(0, layer + kLayer.size() - 1)));
  if (dot != std::string::npos && found.ends_with(known.substr(dot)))
    return fmt::format("; modules of this name are in {}", printable(known.substr(0, dot)));
  return "; the nearest is " + printable(known);
}

void check(RuleContext& context) {
  const BaseModel& base = *context.deployment().base;
  BaseModules modules(base, context.deployment().base_headers.get());
  NameGroups unknown, outside;
  for (const NamedTensor& tensor : context.subject().parts.tensors) {
    if (!tensor.is_factor()) continue;
    const ModuleFit fit = modules.fit(tensor);
    if (fit == ModuleFit::outside_text) {
      outside.add("belongs to a part of the model that this tool does not know", tensor.name);
    } else if (fit == ModuleFit::unknown) {
      unknown.add("is not a module of this base model" +
                      suggestion(tensor.module, modules.nearest_to(tensor.module)),
                  tensor.name);
    }
  }
  unknown.report(context, downgrade_if_served);
  const bool towers = has_other_towers(base.config);
  outside.report(context, [&](Finding& finding, const RuleContext& c) {
    if (towers) finding.severity = Severity::information;
    downgrade_if_served(finding, c);
  });
}

}  // namespace

const Rule mod001_no_such_module = {
    .id = "MOD001",
    .name = "no-such-module",
    .cause = &cause::no_such_module,
    .needs_base = true,
    .what =
        "A tensor's module is not in the base model, neither as the hub spells it nor as "
        "transformers 5 holds it.",
    .why =
        "PEFT drops it with a warning about other keys. vLLM looks at the last name alone and "
        "leaves a module unused that it finds at no path: the base model answers, without an "
        "error. SGLang looks for layers.N and the last name anywhere.",
    .fix =
        "Name the base model that the adapter was trained on (--base); modules that it does not "
        "have must be left out of training.",
    .remedy = Remedy::rewrite,
    .source = "vLLM issues 34186, 39278 and 41754; vllm.md 1.5",
    .breaks = {.change = "write .attention. for .self_attn.",
               .apply =
                   [](Specimen& specimen) {
                     rename_tensors(specimen, ".self_attn.", ".attention.");
                   }},
    .check = check,
};

}  // namespace moelora
