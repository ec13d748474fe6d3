// What a rule says of itself: --explain and --list-rules.

#include <doctest/doctest.h>
#include <fmt/core.h>

#include "lib/check/report.h"
#include "lib/check/report_parts.h"
#include "lib/io/json.h"
#include "tests/check/made_report.h"

using namespace moelora;

TEST_CASE("a rule is for whom and for which releases it says") {
  Rule rule = kLoneQ;
  CHECK(rule_scope(rule) == "sglang");
  rule.since = "0.5.10";
  CHECK(rule_scope(rule) == "sglang from 0.5.10");
  rule.until = "0.5.13";
  CHECK(rule_scope(rule) == "sglang from 0.5.10 before 0.5.13");
  CHECK(rule_scope(kDeadPattern) == "any");
}

TEST_CASE("the address of a rule's source is its first link") {
  CHECK(source_url(kLoneQ) == "https://example.org/pull/1");
  CHECK(source_url(kDeadPattern).empty());
  Rule rule = kLoneQ;
  for (const char* source :
       {"see (https://a.b/c)", "https://a.b/c, https://d", "x https://a.b/c"}) {
    rule.source = source;
    CHECK(source_url(rule) == "https://a.b/c");
  }
}

TEST_CASE(
    "an explanation has what, why, needs, source and fix, and an example where there is one") {
  Rule rule = kLoneQ;
  rule.needs_base = true;
  CHECK(explain(rule) == R"(SGL902 lone-q (error, sglang)

fires when:
  q_proj has factors, v_proj has none

why:
  The server dies: KeyError: 'v_proj'.

needs:
  --base

source:
  sgl-project/sglang, https://example.org/pull/1 (merged)

fix:
  lora-convert adapter ADAPTER OUT --to peft-linear
)");
}

TEST_CASE("every rule's example shows the finding that it really gives") {
  for (const Rule* rule : all_rules()) {
    CAPTURE(rule->id);
    const std::string text = explain(*rule);
    CHECK(text.find(fmt::format("In the sound adapter {}: {}.", rule->breaks.specimen,
                                rule->breaks.change)) != std::string::npos);
    bool shown = false;  // with its severity there, which may be another than the rule's usual one
    for (Severity severity : {Severity::information, Severity::warning, Severity::error})
      shown = shown || text.find(fmt::format("\n  {}: ", severity_name(severity))) < text.size() ||
              text.find(fmt::format("\n  {} for ", severity_name(severity))) < text.size();
    CHECK(shown);
  }
}

TEST_CASE("what rules say fits what GitHub shows of a SARIF rule") {
  for (const Rule* rule : all_rules()) {
    CAPTURE(rule->id);
    CHECK(rule->what.size() <= 1024);
    CHECK(rule->why.size() <= 1024);
  }
}

TEST_CASE("the lists of rules have a line for each rule") {
  const std::string markdown = list_rules("markdown"), text = list_rules("text");
  const Json json = parse_json(list_rules("json"), "rules");
  CHECK(json.find("rules")->items().size() == all_rules().size());
  for (const Rule* rule : all_rules()) {
    CAPTURE(rule->id);
    CHECK(markdown.find(fmt::format("\n| {} | {} |", rule->id, rule->name)) != std::string::npos);
    CHECK(text.find(fmt::format("\n{}  {}", rule->id, rule->name)) != std::string::npos);
  }
}

TEST_CASE("Markdown text says what it says and does nothing else") {
  CHECK(md_text("plain text, 1.5 (a)") == "plain text, 1.5 (a)");
  CHECK(md_text("a|b") == "a\\|b");
  CHECK(md_text("__x__ `y`\nz") == "\\_\\_x\\_\\_ \\`y\\` z");
  CHECK(md_text("lora_A_ _b") == "lora_A\\_ \\_b");
  CHECK(md_text("me@x @you") == "me@x @<!-- -->you");
  CHECK(md_text("http://x") == "http:/<!-- -->/x");
  CHECK(md_code("") == "");
  CHECK(md_code("a|b") == "`a\\|b`");
  CHECK(md_code("a`b``c") == "``` a`b``c ```");
}
