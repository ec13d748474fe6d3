#include <fmt/format.h>

#include <algorithm>

#include "lib/base/utf8.h"
#include "lib/check/example_edits.h"
#include "lib/check/name_groups.h"
#include "lib/check/rule_context.h"
#include "lib/check/target_names.h"
#include "lib/engine/cause.h"

namespace moelora {
namespace {

bool is_expert_word(const std::string& target) {
  constexpr std::string_view kWords[] = {
      "gate_proj", "up_proj",      "down_proj",     "w1",        "w2", "w3",
      "experts",   "gate_up_proj", "gate_up_projs", "down_projs"};
  return std::any_of(std::begin(kWords), std::end(kWords), [&](std::string_view word) {
    return target == word || target.ends_with("." + std::string(word)) ||
           target.starts_with(std::string(word) + ".");
  });
}

// Whether the base model has a module that the entry names; without a base model it may have.
bool base_has(const ModelSpec* spec, const std::string& target) {
  if (spec == nullptr || is_expert_word(target)) return true;
  const auto ends = [&](const std::string& path) {
    return path == target || path.ends_with("." + target) || path + ".weight" == target ||
           (path + ".weight").ends_with("." + target);
  };
  return std::any_of(spec->linears.begin(), spec->linears.end(), [&](const LinearSpec& linear) {
    return ends(linear.hub) || ends(linear.memory);
  });
}

std::string list(const std::vector<std::string>& names) {
  return list_some(names, 6, [](const std::string& name) { return quoted(name); });
}

void report_unused(RuleContext& context, std::string_view key,
                   const std::vector<std::string>& unused) {
  const Subject& subject = context.subject();
  std::vector<std::string> missing, foreign;
  for (const std::string& target : unused)
    (base_has(context.spec(), target) ? missing : foreign).push_back(target);
  const bool no_experts =
      subject.experts.empty() && std::any_of(missing.begin(), missing.end(), is_expert_word);
  if (!missing.empty())
    context.report_config(
        key, fmt::format("names {}, for which there is no tensor{}", list(missing),
                         no_experts ? ": no routed expert was trained, or none was saved" : ""));
  if (!foreign.empty())
    context
        .report_config(key,
                       fmt::format("names {}, which this base model does not have", list(foreign)))
        .severity = Severity::information;
}

void report_unnamed(RuleContext& context, const TargetReading& targets) {
  const AdapterParts& parts = context.subject().parts;
  NameGroups experts, others;
  for (const int i : targets.unnamed) {
    const NamedTensor& tensor = parts.any(parts.pairs[static_cast<size_t>(i)]);
    (tensor.expert && targets.names_experts ? experts : others)
        .add("is named by no entry of target_modules or target_parameters", tensor.name);
  }
  experts.report(context, [](Finding& finding, const RuleContext&) {
    finding.severity = Severity::information;
  });
  others.report(context);
}

void check(RuleContext& context) {
  const Subject& subject = context.subject();
  if (!subject.parsed_config || subject.parts.pairs.empty()) return;
  const AdapterConfig& config = *subject.parsed_config;
  if (config.target_modules.empty() && config.target_regex.empty() &&
      config.target_parameters.empty())
    return;  // CFG001
  const TargetReading targets = read_targets(subject);
  if (targets.problem)
    context.report_config("target_modules", fmt::format("{} {}", quoted(config.target_regex),
                                                        targets.problem->text()));
  report_unused(context, "target_modules", targets.unused_modules);
  report_unused(context, "target_parameters", targets.unused_parameters);
  report_unnamed(context, targets);
}

}  // namespace

extern const Rule cfg005_config_without_tensors;
const Rule cfg005_config_without_tensors = {
    .id = "CFG005",
    .name = "config-without-tensors",
    .cause = &cause::config_without_tensors,
    .severity = Severity::warning,
    .what =
        "target_modules or target_parameters names a module that has no tensor, or a tensor's "
        "module is named by neither, or target_modules is an expression that cannot be evaluated.",
    .why =
        "Either the module was not trained (the gpt-oss notebooks on 4-bit models named the "
        "experts and saved attention alone), or its tensors are lost. SGLang chooses its "
        "buffers by target_modules: experts named by one of gate_up and down only are not "
        "applied at all.",
    .fix = "Check the targets of the training against what was saved; name what the file holds.",
    .source = "unsloth issues 3405 and 4193, PR 6936; SGLang issue 32376",
    .breaks = {.specimen = "qwen3_moe_per_expert",
               .change = "remove every expert tensor, with gate_proj, up_proj, down_proj named",
               .engine = "",
               .apply = [](Specimen& specimen) { remove_tensors(specimen, ".experts."); }},
    .check = check,
};

}  // namespace moelora
