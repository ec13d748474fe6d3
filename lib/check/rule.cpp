#include "lib/check/rule.h"

#include <algorithm>
#include <vector>

#include "lib/engine/cause.h"

namespace moelora {

#define MOELORA_ENTRY(name) extern const Rule name;
#include "rules.inc"
#undef MOELORA_ENTRY

namespace {

const std::vector<const Rule*>& registry() {
  static const std::vector<const Rule*> kAll = [] {
    std::vector<const Rule*> all = {
#define MOELORA_ENTRY(name) &name,
#include "rules.inc"
#undef MOELORA_ENTRY
    };
    std::sort(all.begin(), all.end(), [](const Rule* a, const Rule* b) { return a->id < b->id; });
    return all;
  }();
  return kAll;
}

}  // namespace

std::string_view severity_name(Severity severity) {
  switch (severity) {
    case Severity::information:
      return "information";
    case Severity::warning:
      return "warning";
    case Severity::error:
      return "error";
  }
  return "";
}

std::span<const Rule* const> all_rules() { return registry(); }

const Rule* find_rule(std::string_view id_or_name) {
  for (const Rule* rule : registry())
    if (rule->id == id_or_name || rule->name == id_or_name) return rule;
  return nullptr;
}

const Rule* find_rule(const Cause& cause) {
  for (const Rule* rule : registry())
    if (rule->cause == &cause) return rule;
  return nullptr;
}

std::string_view rule_name(const Cause& cause) {
  const Rule* rule = find_rule(cause);
  return rule != nullptr ? rule->name : cause.words;
}

}  // namespace moelora
