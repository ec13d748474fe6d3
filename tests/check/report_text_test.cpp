// The text report, whole: what people read first. And the parts that all formats share.

#include <doctest/doctest.h>

#include "lib/check/report_parts.h"
#include "tests/check/made_report.h"

using namespace moelora;

namespace {

bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

}  // namespace

TEST_CASE("the text report groups by adapter, quotes the server and gives one fix for each fault") {
  CHECK(broken_report().written("text") == R"(adapters/a: 1 error, 1 warning, 1 informational
  error SGL902 lone-q for sglang@0.5.18
    layers.10.q_proj.lora_A.weight and 29 more: q_proj without v_proj
    server: KeyError: 'v_proj'
    fix: lora-convert adapter adapters/a OUT --to peft-linear
  warning CFG903 dead-pattern, adapter_config.json:12:5
    rank_pattern: "q_prj" matches no module
    fix: delete it
  information MOD907 coverage
    attention of 2 layers

adapters/b: no findings

the deployment: 1 error
  error SET901 mixed for sglang@0.5.18
    a is shared outer, b is not
    fix: convert one of them

ignored CFG903 dead-pattern in adapters/b: trained that way (.moelora.json:3:5)

note: columns of lora_B are read rank-major
not checked: MOD001, MOD002: no base model was given (--base)

2 errors, 1 warning, 1 informational in 2 adapters, 1 ignored; checked for sglang@0.5.18, peft@0.21
)");
}

TEST_CASE("a sound deployment takes three short paragraphs") {
  CHECK(sound_report().written("text") == R"(adapters/a: no findings

adapters/b: no findings

no findings in 2 adapters; checked for sglang@0.5.18, peft@0.21
)");
}

TEST_CASE("without an engine the summary says that servers were not checked for") {
  MadeReport made = sound_report();
  made.deployment.engines.clear();
  made.deployment.adapters.pop_back();
  CHECK(made.written("text") == R"(adapters/a: no findings

no findings in 1 adapter; no --engine: only the rules of all engines were run
)");
}

TEST_CASE("verbose text lists every name and the memory of each simulated server") {
  ReportOptions options;
  options.verbose = true;
  const std::string text = broken_report().written("text", options);
  CHECK(contains(text, "attention of 2 layers\n    fix: nothing\n"));
  CHECK(contains(text, "    all: layers.10.q_proj.lora_A.weight\n         layers.11.q_proj"));
  CHECK(contains(text, "\n         layers.39.q_proj.lora_A.weight\n  warning "));
  CHECK(contains(text, R"(memory of sglang@0.5.18 on one device, bf16:
buffer      shape       layers  bytes
qkv_proj.A  [3, 8, 64]  2       6144
o_proj.B    [64, 8]     2       2048
one slot 8.19 kB, 3 slots 24.6 kB
)"));
  CHECK(!contains(text, "memory of peft"));
  CHECK(!contains(broken_report().written("text"), "memory of"));
}

TEST_CASE("color is by severity and only when asked for") {
  ReportOptions options;
  options.color = true;
  const std::string text = broken_report().written("text", options);
  CHECK(contains(text, "\x1b[1;31merror\x1b[0m \x1b[1mSGL902"));
  CHECK(contains(text, "\x1b[1;33mwarning\x1b[0m"));
  CHECK(contains(text, "\x1b[1;36minformation\x1b[0m"));
  CHECK(!contains(broken_report().written("text"), "\x1b"));
}

TEST_CASE("no name out of a file steers the terminal, and lines keep their indent") {
  const std::string text = hostile_report().written("text");
  CHECK(!contains(text, "\x1b"));
  CHECK(!contains(text, "\a"));
  CHECK(!contains(text, "\xff"));
  CHECK(!contains(text, "\n::"));
  CHECK(contains(text, "    server: line 1\n            ::error::line 2"));
}

TEST_CASE("prose is wrapped at the terminal's width, commands never") {
  CHECK(wrapped("one two three four", 0, 2) == "one two three four");
  CHECK(wrapped("one two three four", 9, 2) == "one two\n  three\n  four");
  CHECK(wrapped("incomprehensibilities at 8", 8, 0) == "incomprehensibilities\nat 8");
  ReportOptions options;
  options.width = 40;
  const std::string text = broken_report().written("text", options);
  CHECK(contains(text, "and\n    29 more: q_proj without v_proj\n"));
  CHECK(contains(text, "    fix: lora-convert adapter adapters/a OUT --to peft-linear\n"));
}

TEST_CASE("findings of one rule, engine and adapter are one group with all their names") {
  MadeReport made = sound_report();
  for (const char* name : {"z", "a", "m", "a"}) {
    Finding& f = made.add(kLoneQ, 0, std::string("at ") + name);
    f.names = {name};
    f.where = name;
    f.severity = *name == 'm' ? Severity::error : Severity::warning;
  }
  made.add(kLoneQ, 1, "in b");
  Finding& other = made.add(kLoneQ, 0, "elsewhere");
  other.engine = "sglang@0.5.10";
  const auto groups = grouped(made.results.findings);
  REQUIRE(groups.size() == 3);
  CHECK(groups[0].findings.size() == 4);
  CHECK(groups[0].names == std::vector<std::string>{"a", "m", "z"});
  CHECK(groups[0].severity == Severity::error);
  CHECK(finding_line(groups[0]) == "z: at z (3 more of this rule)");
  CHECK(groups[1].first().adapter == 1);
  CHECK(groups[2].first().engine == "sglang@0.5.10");
}

TEST_CASE("a spot is a text file of the adapter, relative to the working folder") {
  MadeReport made = broken_report();
  ReportOptions options;
  options.working_folder = options.root = "/w/repo";
  const auto spot = [&](size_t finding) {
    return spot_of(made.report(options), made.results.findings[finding]);
  };
  CHECK(spot(0).path == "adapters/a/adapter_config.json");  // found in the weights
  CHECK(spot(0).line == 1);
  made.results.findings[0].line = 7;  // of the weights, not of the config
  CHECK(spot(0).line == 1);
  CHECK(spot(1).path == "adapters/a/adapter_config.json");
  CHECK(spot(1).line == 12);
  CHECK(spot(1).column == 5);
  CHECK(spot(3).path == "adapters/a/adapter_config.json");  // of the deployment

  for (const auto& [folder, path] : {std::pair{"./adapters//x/../a/", "adapters/a"},
                                     {"/w/repo/adapters/a", "adapters/a"},
                                     {"../else", "/w/else"},
                                     {"/other/place", "/other/place"}}) {
    made.deployment.adapters[0].folder = folder;
    CHECK(spot(1).path == std::string(path) + "/adapter_config.json");
  }
  made.deployment.adapters[0].folder = ".";
  CHECK(spot(1).path == "adapter_config.json");
  options.working_folder = "/w/repo/sub";
  CHECK(spot(1).path == "sub/adapter_config.json");
}

TEST_CASE("an adapter without a config is pointed at where something is") {
  MadeReport made = broken_report();
  made.deployment.adapters[0].listing = {"adapter_model.safetensors"};
  ReportOptions options;
  options.working_folder = options.root = "/w";
  CHECK(spot_of(made.report(options), made.results.findings[0]).path ==
        "adapters/a/adapter_model.safetensors");
}

TEST_CASE("what was not found is pointed at as it was given") {
  MadeReport made = broken_report();
  Subject& adapter = made.deployment.adapters[0];
  adapter.given = "adapters/gone";
  adapter.folder = "adapters";
  adapter.listing.clear();
  ReportOptions options;
  options.working_folder = options.root = "/w";
  CHECK(spot_of(made.report(options), made.results.findings[2]).path ==
        "adapters/gone/adapter_config.json");
}

TEST_CASE("a run fails at or above its threshold") {
  MadeReport made = sound_report();
  made.add(kDeadPattern, 0, "a warning");
  ReportOptions options;
  CHECK(!fails(made.report(options)));
  options.fail_on = Severity::warning;
  CHECK(fails(made.report(options)));
  made.add(kLoneQ, 0, "an error");
  options.fail_on = Severity::error;
  CHECK(fails(made.report(options)));
  options.fail_on = std::nullopt;
  CHECK(!fails(made.report(options)));
}
