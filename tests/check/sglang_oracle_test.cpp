// lora-validate's results against SGLang: what it refused is an error that quotes it, what it
// drops, cuts or scales otherwise is said, what it served whole is quiet.

#include <doctest/doctest.h>
#include <fmt/core.h>

#include <algorithm>
#include <map>
#include <set>

#include "tests/check/sglang_deployment.h"
#include "tests/engine/sglang_compare.h"
#include "tests/engine/sglang_faults.h"

using namespace moelora;
using namespace moelora::test;

namespace {

std::string text(const RuleResults& results) {
  std::string out;
  for (const Finding& f : results.findings)
    if (f.severity != Severity::information)
      out += fmt::format("\n  {} {} {}: {} | {}", f.rule->id, severity_name(f.severity), f.where,
                         f.message, f.server_text);
  return out;
}

bool quotes(const RuleResults& results, const OracleRecord& record) {
  Refusal said;
  said.type = record.text("type");
  said.text = record.text("text");
  const std::string theirs = with_sorted_sets(refusal_text(said));
  const std::string any_w = "NotImplementedError: get_hidden_dim not implemented for w";
  return std::any_of(results.findings.begin(), results.findings.end(), [&](const Finding& f) {
    const std::string ours = with_sorted_sets(f.server_text);
    return f.severity == Severity::error &&
           (ours == theirs || (ours.starts_with(any_w) && theirs.starts_with(any_w)));
  });
}

bool speaks(const RuleResults& results, const std::string& rule) {
  return std::any_of(results.findings.begin(), results.findings.end(), [&](const Finding& f) {
    return f.severity != Severity::information && f.rule->name == rule;
  });
}

// Faults that show in values only.
std::set<std::string> value_faults(const OracleRecord& record) {
  const std::string adapter = record.text("adapter");
  std::set<std::string> out;
  if (adapter == "hand.nan_in_b") out.insert("non-finite");
  if (adapter == "hand.f16_overflow") out.insert("f16-overflow");
  return out;
}

// Nothing above information from SGL rules, no error from those of no engine but the numeric ones
// (sglang_numbers_test.cpp).
bool is_quiet(const RuleResults& results) {
  return std::all_of(results.findings.begin(), results.findings.end(), [](const Finding& f) {
    if (f.rule->engine == &engines::sglang) return f.severity == Severity::information;
    return f.rule->numeric || f.severity != Severity::error;
  });
}

}  // namespace

TEST_CASE("lora-validate says of every adapter what SGLang did with it, in every setting") {
  size_t refused = 0, faulty = 0, whole = 0;
  for (const OracleRecord& record : sglang_records()) {
    const std::string setting = record.text("setting");
    if (record.text("adapter").empty() || setting.ends_with(".1")) continue;  // checked with rank 0
    const RuleResults& results = check_for_sglang(record);
    INFO(record.label() << text(results));
    std::set<std::string> faults = value_faults(record);
    for (const Cause* cause : silent_faults(record)) faults.emplace(rule_name(*cause));
    if (record.text("stage").empty() && has_split_a(record)) faults.insert("gpt-oss-split-a");
    if (!record.text("stage").empty()) {
      ++refused;
      CHECK(quotes(results, record));
    } else if (!faults.empty()) {
      ++faulty;
      for (const std::string& rule : faults) {
        CAPTURE(rule);
        CHECK(speaks(results, rule));
      }
    } else {
      ++whole;
      CHECK(is_quiet(results));
    }
  }
  CHECK(refused == 207);
  CHECK(faulty > 200);
  CHECK(whole > 600);
}
