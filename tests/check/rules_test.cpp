// Every rule on its own example, every sound specimen under every engine that accepts it.

#include <doctest/doctest.h>
#include <fmt/core.h>

#include <algorithm>
#include <set>

#include "lib/check/run_rules.h"
#include "lib/check/specimen.h"

using namespace moelora;

namespace {

std::string text(const Finding& f) {
  return fmt::format("{} {} [{}] {}: {} | {}", f.rule->id, severity_name(f.severity), f.engine,
                     f.where, f.message, f.server_text);
}

bool implied(const Rule& rule, const Finding& finding) {
  return finding.rule == &rule || std::find(rule.implies.begin(), rule.implies.end(),
                                            finding.rule->id) != rule.implies.end();
}

bool is_id(std::string_view id) {
  return id.size() == 6 &&
         std::all_of(id.begin(), id.begin() + 3, [](char c) { return c >= 'A' && c <= 'Z'; }) &&
         std::all_of(id.begin() + 3, id.end(), [](char c) { return c >= '0' && c <= '9'; });
}

}  // namespace

TEST_CASE("every sound specimen is clean under every engine that accepts it, and under none") {
  for (std::string_view id : specimen_ids()) {
    std::vector<std::string> engines = make_specimen(id).engines;
    engines.emplace_back("");
    for (const std::string& engine : engines) {
      CAPTURE(id);
      CAPTURE(engine);
      const Deployment deployment = deployment_of(make_specimen(id), engine);
      REQUIRE(deployment.adapters[0].problems.empty());
      CHECK(!deployment.adapters[0].adapter_error);
      for (const Finding& finding : run_rules(deployment).findings) {
        CAPTURE(text(finding));
        CHECK(finding.severity == Severity::information);
      }
    }
  }
}

TEST_CASE("every rule fires on its own example, and nothing above information beside it") {
  for (const Rule* rule : all_rules()) {
    CAPTURE(rule->id);
    const RuleResults results = run_rules(example_of(*rule));
    CHECK(std::any_of(results.findings.begin(), results.findings.end(),
                      [&](const Finding& f) { return f.rule == rule && !f.unchecked; }));
    for (const Finding& finding : results.findings) {
      CAPTURE(text(finding));
      CHECK(!finding.unchecked);
      CHECK((finding.severity == Severity::information || implied(*rule, finding)));
    }
  }
}

TEST_CASE("rules have ids and names of their own and say what, why and how to fix it") {
  std::set<std::string_view> ids, names;
  for (const Rule* rule : all_rules()) {
    CAPTURE(rule->id);
    CHECK(is_id(rule->id));
    CHECK(ids.insert(rule->id).second);
    CHECK(names.insert(rule->name).second);
    for (std::string_view part :
         {rule->name, rule->what, rule->why, rule->fix, rule->breaks.change})
      CHECK(!part.empty());
    for (std::string_view version : {rule->since, rule->until})
      if (!version.empty()) CHECK_NOTHROW(rule->engine->release(version));
    const std::string_view engine = rule->engine == nullptr ? "" : rule->engine->id;
    if (!rule->breaks.engine.empty()) CHECK(rule->breaks.engine.substr(0, engine.size()) == engine);
    for (std::string_view id : rule->implies)
      if (!id.empty()) CHECK(find_rule(id) != nullptr);
    CHECK((rule->check != nullptr || rule->cause != nullptr));
    if (rule->cause != nullptr) CHECK(find_rule(*rule->cause) == rule);  // and no other's
  }
}
