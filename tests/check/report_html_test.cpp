// The page of lora-validate --format html.

#include <doctest/doctest.h>

#include <algorithm>
#include <string>

#include "lib/check/page/coverage.h"
#include "tests/check/goldens.h"
#include "tests/check/made_report.h"

using namespace moelora;
using namespace moelora::test;

namespace {

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

Report report_of(const GoldenResults& golden) {
  static const std::vector<Waived> kNone;
  return {{&golden.deployment, 1}, golden.results, kNone, {}};
}

std::string page_of(const GoldenResults& golden) {
  return find_report_format("html")->write(report_of(golden));
}

}  // namespace

TEST_CASE("the page has a matrix of verdicts, findings by rule, memory and notes") {
  ReportOptions options;
  options.origin = {"lora-validate a b", "2026-12-01 05:05 UTC"};
  const std::string page = broken_report().written("html", options);
  for (const char* part :
       {"Failed", "lora-validate a b", "2026-12-01 05:05 UTC", "whatever the server",
        "sglang@0.5.18", "peft@0.21", "adapters/a", "the deployment", "error SGL902 lone-q",
        "KeyError: 'v_proj'", "lora-convert adapter adapters/a OUT", "Memory of sglang@0.5.18",
        "qkv_proj.A [3, 8, 64], 2 layers", "Ignored", "trained that way", "Notes", "not checked"})
    CHECK_MESSAGE(has(page, part), part);
  CHECK(has(sound_report().written("html"), "Passed"));
}

TEST_CASE("of many adapters the page shows the worst, and says how many more there are") {
  MadeReport made = sound_report();
  const Subject one = made.deployment.adapters[0];
  for (int i = 0; i < 300; ++i) {
    made.deployment.adapters.push_back(one);
    made.deployment.adapters.back().given = "adapters/" + std::to_string(i);
  }
  for (size_t i = 0; i < 200; ++i) made.add(kDeadPattern, i + 2, "a finding of its own");
  made.add(kLoneQ, 290, "the only error");
  const std::string page = made.written("html");
  CHECK(page.size() < 60000);
  CHECK(has(page, "<code>adapters/288</code>"));
  CHECK(has(page, "and 252 more whose findings are at most as severe"));
  CHECK(has(page, "and 194 more of this rule"));
  CHECK(has(page, "200 findings in 200 places"));
}

TEST_CASE("no text of a file is markup on the page") {
  const std::string page = hostile_report().written("html");
  // Lines that a CI would take for commands are the tools' matter, as in every form of report.
  for (const char* part : {"<img", "<c>", "\"d\"", "&rlm;</"}) CHECK(!has(page, part));
  CHECK(has(page, "&lt;img&gt;"));
}

TEST_CASE("the picture of the model says what is adapted, and what a server makes of it") {
  const GoldenResults whole = check_golden("gpt_oss", "attention_only", true, {"vllm"});
  const std::vector<Coverage> pictures = coverages(report_of(whole), 8);
  REQUIRE(pictures.size() == 1);
  const page::Grid& grid = pictures[0].grid;
  CHECK(has(pictures[0].title, "attention_only on vllm@"));
  const auto state = [&](const std::string& row, size_t column) {
    const auto at = std::find(grid.rows.begin(), grid.rows.end(), row);
    REQUIRE(at != grid.rows.end());
    const size_t index = static_cast<size_t>(at - grid.rows.begin()) * grid.columns.size() + column;
    return grid.key[grid.cells[index]].label;
  };
  const size_t first = grid.columns.front() == "none" ? 1 : 0;
  CHECK(state("self_attn.q_proj", first) == "adapted");
  CHECK(state("experts.down_proj", first) == "not adapted");
  CHECK(has(page_of(whole), "What is adapted, and what the server makes of it"));
}

TEST_CASE("what a server refuses or drops is marked in the picture") {
  const GoldenResults lone = check_golden("gpt_oss", "lone_q", true, {"sglang"});
  const std::vector<Coverage> pictures = coverages(report_of(lone), 8);
  REQUIRE(pictures.size() == 1);
  CHECK(has(page::grid_figure(pictures[0].grid), "refused"));
}

TEST_CASE("pictures beyond the most are counted") {
  const GoldenResults whole =
      check_golden("gpt_oss", "attention_only", true, {"vllm", "sglang", "peft"});
  size_t left_out = 0;
  CHECK(coverages(report_of(whole), 2, &left_out).size() == 2);
  CHECK(left_out == 1);
}

TEST_CASE("blocks are in the text report where they are asked for") {
  const GoldenResults whole = check_golden("gpt_oss", "attention_only", true, {"vllm"});
  Report report = report_of(whole);
  report.options.verbose = true;
  const ReportFormat& text = *find_report_format("text");
  CHECK(!has(text.write(report), "\x1b[48"));
  report.options.blocks = true;
  CHECK(has(text.write(report), "\x1b[48;5;71m"));
}
