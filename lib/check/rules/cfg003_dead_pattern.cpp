#include <fmt/core.h>

#include "lib/base/path_pattern.h"
#include "lib/base/utf8.h"
#include "lib/check/define_rule.h"
#include "lib/check/rule_context.h"
#include "lib/check/subject/module_paths.h"

namespace moelora {
namespace {

// What is wrong with each key: "" where some module of the adapter matches it.
std::vector<std::string> faults(const PathPatterns& keys, const Subject& subject) {
  std::vector<std::string> out(keys.size(), "matches no module of this adapter");
  std::vector<bool> done(keys.size());
  const auto settle = [&](size_t i, std::string fault) {
    out[i] = std::move(fault);
    done[i] = true;
  };
  for (const FactorPair& pair : subject.parts.pairs)
    for (const std::string& path : paths_of(subject, pair))
      for (size_t i = 0; i < out.size(); ++i) {
        if (done[i]) continue;
        try {
          if (keys.matches(i, path)) settle(i, "");
        } catch (const Error& error) {
          settle(i, error.text());
        }
      }
  return out;
}

// Keys such as "experts" or "experts.base_layer" name what the tensors are called.
bool names_module(const std::string& key) {
  return key.ends_with("experts") || key.ends_with("base_layer");
}

void check_pattern(RuleContext& context, std::string_view name, const PathPatterns& keys) {
  const std::vector<std::string> found = faults(keys, context.subject());
  const Json* json = context.subject().config.find(name);
  for (size_t i = 0; i < found.size(); ++i) {
    if (found[i].empty()) continue;
    Finding& finding = context.report_config(
        name, fmt::format("{} {}{}", quoted(keys.key(i)), found[i],
                          names_module(keys.key(i))
                              ? ": PEFT matches expert parameters by path, "
                                "...experts.gate_up_proj, not by the names of their tensors"
                              : ""));
    if (const Json* at = json == nullptr ? nullptr : json->find(keys.key(i))) {
      finding.line = at->line();
      finding.column = at->column();
    }
  }
}

void check(RuleContext& context) {
  const Subject& subject = context.subject();
  if (!subject.parsed_config || subject.parts.pairs.empty()) return;
  check_pattern(context, "rank_pattern", subject.parsed_config->rank_pattern.keys());
  check_pattern(context, "alpha_pattern", subject.parsed_config->alpha_pattern.keys());
}

}  // namespace

const Rule cfg003_dead_pattern = {
    .id = "CFG003",
    .name = "dead-pattern",
    .severity = Severity::warning,
    .what =
        "A key of rank_pattern or alpha_pattern matches no module of the adapter, or cannot be "
        "evaluated.",
    .why =
        "The module it was meant for has the rank and scale of the rest. PEFT takes the first "
        "key for which re.match(r\"(.*\\.)?(KEY)$\", path) succeeds, and the path of an expert "
        "parameter ends in gate_up_proj or down_proj although its tensors are called experts.",
    .fix = "Write the key as the module's path ends, or remove it.",
    .source = "peft utils/other.py get_pattern_key",
    .breaks = {.change = "give \"query_proj\" an alpha of its own",
               .config = {{"alpha_pattern", R"({"query_proj": 16})"}}},
    .check = check,
};

}  // namespace moelora
