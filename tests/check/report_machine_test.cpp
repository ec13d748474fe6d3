// The reports that machines read: JSON, SARIF, JUnit, GitHub annotations and Markdown. The JSON
// ones are also held against their schemas, by tests/check/report_schema_test.py.

#include <doctest/doctest.h>
#include <fmt/core.h>

#include <algorithm>
#include <cstdlib>
#include <fstream>
#include <set>

#include "lib/base/utf8.h"
#include "lib/io/json.h"
#include "tests/check/made_report.h"

using namespace moelora;

namespace {

size_t count(std::string_view text, std::string_view part) {
  size_t out = 0;
  for (size_t at = text.find(part); at != std::string_view::npos; at = text.find(part, at + 1))
    ++out;
  return out;
}

Json parsed(const MadeReport& made, std::string_view format) {
  return parse_json(made.written(format), std::string(format));
}

const Json& at(const Json& json, std::initializer_list<const char*> keys) {
  const Json* value = &json;
  for (const char* key : keys) {
    value = value->is(Json::Kind::array) ? &value->items().at(std::stoul(key)) : value->find(key);
    REQUIRE(value != nullptr);
  }
  return *value;
}

std::string text_at(const Json& json, std::initializer_list<const char*> keys) {
  const Json& value = at(json, keys);
  return value.is(Json::Kind::string) ? value.as_string() : value.dump(-1);
}

ReportOptions in_folder(const char* folder) {
  ReportOptions out;
  out.working_folder = out.root = folder;
  return out;
}

}  // namespace

TEST_CASE("every format is found by its id, says what it is and ends with a newline") {
  std::set<std::string_view> ids;
  for (const ReportFormat* format : all_report_formats()) {
    CHECK(find_report_format(format->id) == format);
    CHECK(!format->summary.empty());
    for (const MadeReport& made : {sound_report(), broken_report(), hostile_report()})
      CHECK(format->write(made.report()).back() == '\n');
    ids.insert(format->id);
  }
  CHECK(ids ==
        std::set<std::string_view>{"github", "html", "json", "junit", "markdown", "sarif", "text"});
  CHECK(find_report_format("xml") == nullptr);
}

TEST_CASE("made-up reports are written for readers in other languages, into $MOELORA_REPORTS") {
  const char* folder = std::getenv("MOELORA_REPORTS");
  if (folder == nullptr) return;
  const std::pair<const char*, MadeReport> reports[] = {
      {"sound", sound_report()}, {"broken", broken_report()}, {"hostile", hostile_report()}};
  for (const ReportFormat* format : all_report_formats())
    for (const auto& made : reports) {
      const std::string path = fmt::format("{}/{}.{}", folder, made.first, format->id);
      std::ofstream(path, std::ios::binary) << made.second.written(format->id, in_folder("/w"));
    }
}

TEST_CASE("whatever the adapter holds, every report is UTF-8 of characters that are seen") {
  for (const ReportFormat* format : all_report_formats()) {
    CAPTURE(format->id);
    const std::string text = format->write(hostile_report().report());
    CHECK(printable_lines(text) == text);
  }
}

TEST_CASE("JSON reports all of a finding, every name included") {
  const Json json = parsed(broken_report(), "json");
  CHECK(text_at(json, {"schema"}) == "moelora.validate/1");
  const Json& lone = at(json, {"findings", "0"});
  CHECK(text_at(lone, {"rule"}) == "SGL902");
  CHECK(text_at(lone, {"severity"}) == "error");
  CHECK(text_at(lone, {"engine"}) == "sglang@0.5.18");
  CHECK(text_at(lone, {"adapter"}) == "adapters/a");
  CHECK(text_at(lone, {"server_text"}) == "KeyError: 'v_proj'");
  CHECK(text_at(lone, {"count"}) == "30");
  CHECK(at(lone, {"names"}).items().size() == 30);
  const Json& pattern = at(json, {"findings", "1"});
  CHECK(text_at(pattern, {"engine"}) == "null");
  CHECK(text_at(pattern, {"server_text"}) == "null");
  CHECK(text_at(pattern, {"line"}) == "12");
  CHECK(text_at(json, {"findings", "3", "adapter"}) == "null");
  CHECK(text_at(json, {"ignored", "0", "reason"}) == "trained that way");
  CHECK(text_at(json, {"ignored", "0", "rule"}) == "CFG903");
  CHECK(text_at(json, {"skipped", "0", "what"}) == "MOD001, MOD002");
  CHECK(text_at(json, {"notes", "0"}) == "columns of lora_B are read rank-major");
  CHECK(text_at(json, {"memory", "0", "total_bytes"}) == "24576");
  CHECK(text_at(json, {"memory", "0", "buffers", "0", "shape"}) == "[3, 8, 64]");
  CHECK(text_at(json, {"summary"}) ==
        R"({"errors": 2, "warnings": 1, "information": 1, "ignored": 1, "rules_run": 42, )"
        R"("fail_on": "error", "failed": true, "unjudged": false})");
}

TEST_CASE("SARIF has one result for a rule, an adapter and an engine, at the config's line") {
  MadeReport made = broken_report();
  made.add(kLoneQ, 0, "once more");
  const Json run = at(parse_json(made.written("sarif", in_folder("/w")), "sarif"), {"runs", "0"});
  CHECK(at(run, {"results"}).items().size() == 4);
  const Json& lone = at(run, {"results", "0"});
  CHECK(text_at(lone, {"ruleId"}) == "SGL902");
  CHECK(text_at(lone, {"level"}) == "error");
  CHECK(text_at(lone, {"message", "text"}) ==
        "layers.10.q_proj.lora_A.weight and 29 more: q_proj without v_proj (1 more of this rule).\n"
        "sglang@0.5.18 says: KeyError: 'v_proj'\n"
        "Fix: lora-convert adapter adapters/a OUT --to peft-linear");
  const Json& location = at(lone, {"locations", "0"});
  CHECK(text_at(location, {"physicalLocation", "artifactLocation", "uri"}) ==
        "adapters/a/adapter_config.json");
  CHECK(at(location, {"logicalLocations"}).items().size() == 20);
  CHECK(text_at(lone, {"properties", "count"}) == "30");
  CHECK(at(lone, {"properties", "names"}).items().size() == 20);
  CHECK(text_at(run, {"results", "1", "locations", "0", "physicalLocation", "region"}) ==
        R"({"startLine": 12, "startColumn": 5, "endLine": 12, "endColumn": 6})");
  CHECK(text_at(run, {"automationDetails", "id"}) == "lora-validate/adapters/a+adapters/b/");
}

TEST_CASE("no text of a file is a link in a SARIF message") {
  const Json run = at(parsed(hostile_report(), "sarif"), {"runs", "0"});
  const std::string text = text_at(run, {"results", "0", "message", "text"});
  CHECK(count(text, "[x] (http://y)") == 1);
  CHECK(count(text, "](") == 0);
}

TEST_CASE("SARIF describes the rules that found something, and results point at them") {
  const Json run = at(parsed(broken_report(), "sarif"), {"runs", "0"});
  const auto& rules = at(run, {"tool", "driver", "rules"}).items();
  REQUIRE(rules.size() == 4);
  for (const Json& result : at(run, {"results"}).items())
    CHECK(text_at(rules.at(static_cast<size_t>(at(result, {"ruleIndex"}).as_int())), {"id"}) ==
          text_at(result, {"ruleId"}));
  CHECK(text_at(rules[3], {"id"}) == "SGL902");
  CHECK(text_at(rules[3], {"helpUri"}) == "https://example.org/pull/1");
  CHECK(rules[0].find("helpUri") == nullptr);
  CHECK(text_at(rules[1], {"properties", "problem.severity"}) == "recommendation");
}

TEST_CASE("a fault keeps its fingerprint while its numbers change; others have others") {
  const auto prints = [](const MadeReport& made) {
    std::vector<std::string> out;
    const Json sarif = parsed(made, "sarif");
    for (const Json& result : at(sarif, {"runs", "0", "results"}).items())
      out.push_back(text_at(result, {"partialFingerprints", "primaryLocationLineHash"}));
    return out;
  };
  MadeReport made = broken_report();
  const std::vector<std::string> before = prints(made);
  made.results.findings[0].message = "q_proj without v_proj in 12 layers";
  made.results.findings[0].names.resize(12);
  CHECK(prints(made) == before);
  made.results.findings[0].adapter = 1;
  CHECK(prints(made)[0] != before[0]);
  CHECK(std::set<std::string>(before.begin(), before.end()).size() == 4);
}

TEST_CASE("what is waived is not a SARIF result, as GitHub would show it as an open alert") {
  const MadeReport made = broken_report();
  const std::string text = made.written("sarif");
  CHECK(count(text, "suppressions") == 0);
  const Json notes =
      at(parsed(made, "sarif"), {"runs", "0", "invocations", "0", "toolExecutionNotifications"});
  CHECK(text_at(notes, {"0", "message", "text"}) ==
        "ignored CFG903 dead-pattern in adapters/b: trained that way (.moelora.json:3:5)");
}

TEST_CASE("paths become URIs, and absolute ones outside the folder file URIs") {
  MadeReport made = broken_report();
  const auto uri_of = [&](const char* folder) {
    made.deployment.adapters[0].folder = folder;
    return text_at(parse_json(made.written("sarif", in_folder("/w")), "sarif"),
                   {"runs", "0", "results", "0", "locations", "0", "physicalLocation",
                    "artifactLocation", "uri"});
  };
  CHECK(uri_of("a b%\xc3\xa4#") == "a%20b%25%C3%A4%23/adapter_config.json");
  CHECK(uri_of("/x/y") == "file:///x/y/adapter_config.json");
}

TEST_CASE("JUnit fails what fails the run, passes the rest, and skips what was not checked") {
  ReportOptions options;
  const std::string text = broken_report().written("junit", options);
  CHECK(
      text.starts_with("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<testsuites "
                       "name=\"lora-validate\" tests=\"7\" failures=\"2\" errors=\"0\">\n"));
  CHECK(count(text, "<testsuite ") == 4);
  CHECK(count(text, "<failure ") == 2);
  CHECK(count(text, "layers.29.q_proj.lora_A.weight and 10 more: q_proj") == 1);
  CHECK(count(text, "<system-out>") == 2);
  CHECK(count(text, "<skipped ") == 2);
  CHECK(count(text, "<testcase name=\"no findings\" classname=\"adapters/b\"/>") == 1);
  options.fail_on = Severity::warning;
  CHECK(count(broken_report().written("junit", options), "<failure ") == 3);
  options.fail_on = std::nullopt;
  CHECK(count(broken_report().written("junit", options), "<failure ") == 0);
}

TEST_CASE("JUnit escapes what would be markup") {
  const std::string text = hostile_report().written("junit");
  CHECK(count(text, "<c>") == 0);
  CHECK(count(text, "&lt;c&gt;&amp;&quot;d&quot;") > 0);
  CHECK(count(text, "<img>") == 0);
}

TEST_CASE("a GitHub annotation names file, line and rule on one line") {
  const std::string text = broken_report().written("github", in_folder("/w"));
  CHECK(text.starts_with(
      "::error file=adapters/a/adapter_config.json,line=1,endLine=1,col=1,title=SGL902 lone-q "
      "(sglang@0.5.18)::layers.10.q_proj.lora_A.weight and 29 more: q_proj without v_proj%0A"
      "server: KeyError: 'v_proj'%0Afix: lora-convert adapter adapters/a OUT --to peft-linear\n"));
  CHECK(count(text, "::warning file=adapters/a/adapter_config.json,line=12,endLine=12,col=5,") ==
        1);
  CHECK(count(text, "::notice ") == 0);
  CHECK(count(text, "\ninformation MOD907 coverage adapters/a: attention of 2 layers\n") == 1);
  CHECK(count(text, "\nignored CFG903 dead-pattern in adapters/b: trained that way") == 1);
}

TEST_CASE("information is annotated when GitHub's report is verbose") {
  ReportOptions options = in_folder("/w");
  options.verbose = true;
  CHECK(count(broken_report().written("github", options), "\n::notice ") == 1);
}

TEST_CASE("more than ten annotations of a kind go to the log as lines, and the tenth says so") {
  for (const size_t findings : {10u, 11u, 40u}) {
    MadeReport made = sound_report();
    made.deployment.adapters.resize(findings, made.deployment.adapters[0]);
    for (size_t i = 0; i < findings; ++i) made.add(kLoneQ, i, "q");
    const std::string text = made.written("github");
    CAPTURE(findings);
    CHECK(count(text, "::error ") == 10);
    CHECK(count(text, "\nerror SGL902 lone-q") == (findings == 10 ? 0 : findings - 9));
    CHECK(count(text, fmt::format("::{} more follow", findings - 9)) == (findings == 10 ? 0 : 1));
  }
}

TEST_CASE("nothing out of a file becomes a workflow command") {
  const std::string text = hostile_report().written("github");
  for (size_t at = 0; at != std::string::npos && at < text.size(); at = text.find('\n', at)) {
    if (at > 0) ++at;
    if (text.compare(at, 2, "::") == 0) CHECK(text.compare(at, 8, "::error ") == 0);
  }
  CHECK(count(text, "##vso[") == 0);
  CHECK(count(text, "%0Aserver: line 1%0A\\u003a:error::line 2") == 1);
  CHECK(count(text, "\\x1b]0;t\\x07\\u{202e}\n") == 1);  // the end of a fix
  CHECK(count(text, "50%25") == 1);
  CHECK(count(text, "%250A") == 1);  // "%0A" in a text stays one

  MadeReport made = sound_report();
  made.results.notes = {"x ##[add-path]y", "::set-env name=A::b"};
  CHECK(count(made.written("github"), "##[") == 0);
  CHECK(count(made.written("github"), "\n::") == 0);
}

TEST_CASE("Markdown has a table for each adapter and reports what was ignored and skipped") {
  ReportOptions options;
  options.verbose = true;
  const std::string text = broken_report().written("markdown", options);
  CHECK(text.starts_with("## lora-validate: failed\n\n2 errors, 1 warning"));
  CHECK(count(text,
              "| error | SGL902 lone-q | sglang@0.5.18 | `layers.10.q_proj.lora_A.weight and "
              "29 more`: q_proj without v_proj<br>server: `KeyError: 'v_proj'` | ") == 1);
  CHECK(count(text, "\n### adapters/b\n\nNo findings.\n") == 1);
  CHECK(count(text, "\n### Memory of sglang@0.5.18 on one device\n") == 1);
  CHECK(count(text, "\n- not checked: MOD001, MOD002: no base model was given (--base)\n") == 1);
  CHECK(sound_report().written("markdown").starts_with("## lora-validate: passed\n"));
}

TEST_CASE("no text of a file formats, links or mentions in Markdown") {
  const std::string text = hostile_report().written("markdown");
  CHECK(count(text, "<img>") == 0);
  CHECK(count(text, "](") == count(text, "\\]("));
  CHECK(count(text, " @user") == 0);
  CHECK(count(text, "&rlm;") == count(text, "\\&rlm;"));
  const size_t row = text.find("| error |"), end = text.find('\n', row);
  size_t cells = 0;
  for (size_t i = row; i < end; ++i)
    if (text[i] == '|' && text[i - 1] != '\\') ++cells;
  CHECK(cells == 6);
}
