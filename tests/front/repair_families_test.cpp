// The faults that rules break one adapter with, in the adapters of every other specimen: what the
// findings call a repair is one there too.

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <map>

#include "lib/check/run_rules.h"
#include "lib/check/specimen.h"
#include "tests/front/repair_cases.h"

using namespace moelora;
using namespace moelora::test;

namespace {

const Rule kNone;  // no finding is of it: no repair is run in a shell

// The rule with its fault in that specimen; nullopt where it does not fire there.
std::optional<Rule> moved(const Rule& rule, std::string_view specimen) {
  if (rule.remedy == Remedy::by_hand || specimen == rule.breaks.specimen) return std::nullopt;
  Rule out = rule;
  out.breaks.specimen = specimen;
  try {
    const RuleResults found = run_rules(example_of(out));
    if (std::any_of(found.findings.begin(), found.findings.end(),
                    [&](const Finding& finding) { return finding.rule == &rule; }))
      return out;
  } catch (const std::exception&) {  // the fault cannot be made of it
  }
  return std::nullopt;
}

}  // namespace

TEST_CASE("what repairs a fault in one family repairs it in all") {
  std::map<std::string_view, int> runs;
  for (const Rule* rule : all_rules())
    for (std::string_view specimen : specimen_ids()) {
      const auto rule_there = moved(*rule, specimen);
      if (!rule_there) continue;
      const TempFolder temp;
      auto of = example_case(temp, *rule_there);
      if (!of) continue;
      of->name += fmt::format(" in {}", specimen);
      runs[specimen] += check_commands(*of, of->validate(), {rule, &kNone});
    }
  for (std::string_view specimen : specimen_ids()) {
    CAPTURE(specimen);
    CHECK(runs[specimen] > 2);
  }
}
