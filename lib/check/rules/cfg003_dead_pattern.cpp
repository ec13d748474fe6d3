#include <fmt/core.h>

#include <map>
#include <span>

#include "lib/base/regex/path_pattern.h"
#include "lib/base/utf8.h"
#include "lib/check/define_rule.h"
#include "lib/check/rule_context.h"
#include "lib/check/subject/module_paths.h"

namespace moelora {
namespace {

std::vector<std::string> paths_of(const Subject& subject) {
  std::vector<std::string> out;
  for (const FactorPair& pair : subject.parts.pairs)
    for (std::string& path : paths_of(subject, pair)) out.push_back(std::move(path));
  return out;
}

// Keys such as "experts" or "experts.base_layer" name what the tensors are called.
bool names_module(const std::string& key) {
  return key.ends_with("experts") || key.ends_with("base_layer");
}

std::string fault_of(const std::string& key, const PathPatterns::Use& use) {
  if (!use.fault.empty()) return use.fault;
  return std::string("matches no module of this adapter") +
         (names_module(key) ? ": PEFT matches expert parameters by path, ...experts.gate_up_proj, "
                              "not by the names of their tensors"
                            : "");
}

// One finding for each kind of fault, at its first key.
void check_pattern(RuleContext& context, std::string_view name, const PathPatterns& keys,
                   std::span<const std::string> paths) {
  const std::vector<PathPatterns::Use> uses = keys.uses(paths);
  std::map<std::string, std::vector<std::string>> by_fault;
  std::vector<std::string> order;
  for (size_t i = 0; i < uses.size(); ++i) {
    if (uses[i].names) continue;
    const std::string fault = fault_of(keys.key(i), uses[i]);
    auto& alike = by_fault[fault];
    if (alike.empty()) order.push_back(fault);
    alike.push_back(keys.key(i));
  }
  const Json* json = context.subject().config.find(name);
  for (const std::string& fault : order) {
    const std::vector<std::string>& alike = by_fault[fault];
    const std::string listed =
        list_some(alike, 6, [](const std::string& key) { return in_quotes(key); });
    Finding& finding = context.report_config(
        name, alike.size() == 1
                  ? fmt::format("{} {}", listed, fault)
                  : fmt::format("{} keys, each of which {}: {}", alike.size(), fault, listed));
    if (const Json* at = json == nullptr ? nullptr : json->find(alike.front())) {
      finding.line = at->line();
      finding.column = at->column();
    }
  }
}

void check(RuleContext& context) {
  const Subject& subject = context.subject();
  if (!subject.parsed_config || subject.parts.pairs.empty()) return;
  const PathPatterns &ranks = subject.parsed_config->rank_pattern.keys(),
                     &alphas = subject.parsed_config->alpha_pattern.keys();
  if (ranks.size() + alphas.size() == 0) return;
  const std::vector<std::string> paths = paths_of(subject);
  check_pattern(context, "rank_pattern", ranks, paths);
  check_pattern(context, "alpha_pattern", alphas, paths);
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
