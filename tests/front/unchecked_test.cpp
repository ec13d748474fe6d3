// What was asked for and not judged is never green, whatever form the report has; what is whole is
// said in a sentence.

#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <set>

#include "lib/check/validate.h"
#include "lib/io/json.h"
#include "lib/moelora.h"
#include "tests/io/temp_folder.h"

using namespace moelora;

namespace {

namespace fs = std::filesystem;

const std::string kData = MOELORA_TEST_DATA;

// Copies of golden adapters that name another base.
class Folder {
 public:
  std::string path(const std::string& name) const { return temp_.path() + "/" + name; }

  std::string adapter(const std::string& golden, const Json& base) {
    const std::string out = path("adapter" + std::to_string(count_++));
    fs::copy(kData + "/" + golden, out);
    Json config = read_json_file(out + "/adapter_config.json");
    config.set("base_model_name_or_path", base);
    std::ofstream(out + "/adapter_config.json") << config.dump();
    return out;
  }

  // A golden base of which only the config is there, changed.
  std::string base(const std::string& family, const std::string& model_type = "") {
    const std::string out = path("base" + std::to_string(count_++));
    fs::create_directory(out);
    Json config = read_json_file(kData + "/" + family + "/base/config.json");
    if (!model_type.empty()) {
      config.set("model_type", model_type);
      config.set("architectures", Json::array({Json("NewMoeForCausalLM")}));
    }
    std::ofstream(out + "/config.json") << config.dump();
    return out;
  }

 private:
  TempFolder temp_;
  int count_ = 0;
};

Validation run(const std::vector<std::string>& adapters, const std::vector<std::string>& engines,
               const std::string& base = "", bool follow = true) {
  ValidateOptions options;
  options.engines = engines;
  options.base = base;
  options.follow_base = follow;
  options.threads = 1;
  return validate(adapters, options);
}

std::vector<Finding> not_checked(const Validation& found) {
  std::vector<Finding> out;
  for (const Finding& finding : found.findings)
    if (finding.rule->id == "NUM003") out.push_back(finding);
  return out;
}

bool has(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE(
    "an engine without a known base is not judged, whatever the adapter names instead of one") {
  Folder folder;
  for (const Json& base : {Json(), Json("our-org/private-model"), Json("/nowhere/on/this/machine"),
                           Json("../also/nowhere"), Json("")}) {
    CAPTURE(base.dump());
    for (const char* engine : {"sglang", "vllm", "peft"}) {
      CAPTURE(engine);
      const Validation found = run({folder.adapter("qwen3_moe/per_expert", base)}, {engine});
      CHECK(found.outcome() == Outcome::not_judged);
      CHECK(found.outcome(std::nullopt) == Outcome::not_judged);
      REQUIRE(not_checked(found).size() == 1);
      CHECK(not_checked(found)[0].severity == Severity::error);
      CHECK(has(summary(found), std::string("not checked for ") + engine));
      CHECK_FALSE(has(report(found, "text"), "whole"));
    }
    const Validation alone = run({folder.adapter("qwen3_moe/per_expert", base)}, {});
    CHECK(alone.outcome() == Outcome::clean);
  }
}

TEST_CASE("every form of report shows what was not judged as a failure") {
  Folder folder;
  const Validation found = run({folder.adapter("qwen3_moe/per_expert", Json())}, {"vllm"});
  ReportOptions never;
  never.fail_on = std::nullopt;
  for (const ReportOptions& options : {ReportOptions(), never}) {
    CHECK(has(report(found, "text", options), "  error NUM003 not-checked for vllm@"));
    CHECK(has(report(found, "markdown", options), "## lora-validate: failed"));
    CHECK(has(report(found, "junit", options), "<failure type=\"error\" message=\"what vllm@"));
    CHECK(has(report(found, "github", options), "::error file="));
    CHECK(has(report(found, "sarif", options), "\"level\": \"error\""));
    const std::string json = report(found, "json", options);
    CHECK(has(json, "\"failed\": true"));
    CHECK(has(json, "\"unjudged\": true"));
  }
}

TEST_CASE("--ignore NUM003 turns no server that was not judged green") {
  Folder folder;
  const std::string adapter = folder.adapter("qwen3_moe/per_expert", Json());
  const auto ignoring = [&](const std::string& base, const std::string& project) {
    ValidateOptions options;
    options.engines = {"vllm"};
    options.base = base;
    options.project = project;
    if (project.empty()) options.ignore = {"NUM003"};
    options.threads = 1;
    return validate({adapter}, options);
  };
  const std::string unknown = folder.base("qwen3_moe", "new_moe");
  CHECK(ignoring("", "").outcome() == Outcome::not_judged);
  CHECK(ignoring(unknown, "").outcome() == Outcome::findings);
  REQUIRE(ignoring("", "").unused_ignores.size() == 1);
  CHECK(has(ignoring("", "").unused_ignores[0], "--ignore NUM003: not ignored"));

  const std::string project = folder.path(".moelora.json");
  const auto write = [&](const std::string& more) {
    std::ofstream(project) << R"({"ignore": [{"rule": "NUM003", "reason": "served elsewhere")"
                           << more << "}]}";
  };
  write("");
  CHECK(ignoring("", project).outcome() == Outcome::not_judged);
  write(R"(, "adapter": "other*")");
  CHECK(ignoring("", project).outcome() == Outcome::not_judged);
  write(R"(, "adapter": "adapter*")");
  for (const std::string& base : {std::string(), unknown}) {
    const Validation named = ignoring(base, project);
    CHECK(named.outcome() == Outcome::clean);
    REQUIRE(named.ignored.size() == 1);
    CHECK(has(report(named, "text"), "served elsewhere"));
    CHECK(has(summary(named), "not checked for vllm"));
  }
}

TEST_CASE("findings come before what was not judged; a file that cannot be read is one") {
  Folder folder;
  const std::string adapter = folder.adapter("qwen3_moe/per_expert", Json());
  std::ofstream(adapter + "/adapter_model.safetensors") << "no weights";
  const Validation broken = run({adapter}, {"sglang"});
  CHECK(broken.outcome() == Outcome::findings);
  CHECK(run({folder.path("none")}, {"sglang"}).outcome() == Outcome::findings);
  CHECK(run({folder.path("none")}, {}).outcome() == Outcome::findings);
}

TEST_CASE("a folder that the adapter names is its base, unless that is turned off") {
  Folder folder;
  const std::string base = folder.base("qwen3_moe");
  const std::string adapter = folder.adapter("qwen3_moe/per_expert", Json(base));
  const Validation found = run({adapter}, {"vllm"});
  CHECK(found.outcome() == Outcome::clean);
  CHECK(has(report(found, "text"), base + "/config.json (from base_model_name_or_path)"));
  CHECK(run({adapter}, {"vllm"}, "", false).outcome() == Outcome::not_judged);
  // A folder without a config.json is none; nor is the adapter's own folder looked at.
  fs::remove(base + "/config.json");
  CHECK(run({adapter}, {"vllm"}).outcome() == Outcome::not_judged);
}

TEST_CASE("a base of a family or class that nobody knows: an error, and the other rules are run") {
  Folder folder;
  const std::string base = folder.base("qwen3_moe", "new_moe");
  const std::string adapter = folder.adapter("qwen3_moe/per_expert", Json(base));
  for (const std::string& given : {base, std::string()}) {  // named by the user, or by the adapter
    CAPTURE(given);
    const Validation found = run({adapter}, {"vllm", "sglang"}, given);
    CHECK(found.outcome() == Outcome::findings);
    const auto findings = not_checked(found);
    REQUIRE(findings.size() == 2);
    for (const Finding& finding : findings) {
      CHECK(finding.severity == Severity::error);
      CHECK(has(finding.message, "unknown model type 'new_moe'"));
      CHECK(has(finding.message, "NewMoeForCausalLM"));
    }
    CHECK(has(findings[1].engine + findings[0].engine, "sglang@"));
    CHECK(found.rules_run > 20);
  }
  // Without an engine too: the base was asked for.
  CHECK(run({adapter}, {}, base).outcome() == Outcome::findings);
  // A fault that needs no base is found beside it.
  Json config = read_json_file(adapter + "/adapter_config.json");
  config.set("r", int64_t{3});
  std::ofstream(adapter + "/adapter_config.json") << config.dump();
  const Validation wrong = run({adapter}, {}, base);
  CHECK(std::any_of(wrong.findings.begin(), wrong.findings.end(),
                    [](const Finding& finding) { return finding.rule->id == "CFG002"; }));
}

TEST_CASE("another class of a known family is not judged by its relative, nor converted for") {
  Folder folder;
  const std::string base = folder.base("qwen3_moe");
  Json config = read_json_file(base + "/config.json");
  config.set("architectures", Json::strings({"Qwen3MoeForSequenceClassification"}));
  std::ofstream(base + "/config.json") << config.dump();
  const std::string adapter = folder.adapter("qwen3_moe/per_expert", Json(base));
  for (const char* engine : {"vllm", "sglang"}) {
    CAPTURE(engine);
    const Validation found = run({adapter}, {engine});
    CHECK(found.outcome() == Outcome::findings);
    REQUIRE(not_checked(found).size() == 1);
    CHECK(not_checked(found)[0].severity == Severity::error);
    CHECK(has(not_checked(found)[0].message, "Qwen3MoeForSequenceClassification is no class of"));
    CHECK(has(not_checked(found)[0].message, std::string("what ") + engine));
    CHECK(has(report(found, "json"), "\"simulated\": false"));
    CHECK_FALSE(has(report(found, "text"), "whole"));
    ConvertOptions options;
    options.engine = engine;
    CHECK_THROWS_WITH_AS(convert(adapter, folder.path("out"), options),
                         doctest::Contains("no class of"), Error);
  }
}

TEST_CASE("an adapter that names no base, beside one that does, is a deployment with a name") {
  Folder folder;
  const std::string known = folder.adapter("qwen3_moe/per_expert", Json(folder.base("qwen3_moe")));
  const std::string none = folder.adapter("qwen3_moe/per_expert", Json());
  const Validation found = run({none, known}, {"vllm"});
  CHECK(found.outcome() == Outcome::not_judged);
  CHECK(has(report(found, "text"), "the deployment of no known base model"));
}

TEST_CASE("an adapter whose scale is zero is not converted: what it was is not known") {
  Folder folder;
  const std::string adapter =
      folder.adapter("qwen3_moe/per_expert", Json(folder.base("qwen3_moe")));
  Json config = read_json_file(adapter + "/adapter_config.json");
  config.set("lora_alpha", int64_t{0});
  std::ofstream(adapter + "/adapter_config.json") << config.dump();
  ConvertOptions options;
  options.to = "stacked";
  CHECK_THROWS_WITH_AS(convert(adapter, folder.path("out"), options),
                       doctest::Contains("lora_alpha makes the scale of every low-rank pair zero"),
                       Error);
  CHECK(inspect(adapter, {}).problem.empty());
}

TEST_CASE("adapters of several bases are a deployment each, as if they had been given alone") {
  Folder folder;
  const std::string gpt = folder.adapter("gpt_oss/per_expert", Json(folder.base("gpt_oss")));
  const std::string qwen = folder.adapter("qwen3_moe/per_expert", Json(folder.base("qwen3_moe")));
  const auto rules = [](const Validation& found) {
    std::multiset<std::string> out;
    for (const Finding& finding : found.findings)
      out.insert(std::string(finding.rule->id) + " " + finding.engine + " " + finding.message);
    return out;
  };
  for (const char* engine : {"vllm", "sglang"}) {
    CAPTURE(engine);
    const Validation a = run({gpt}, {engine}), b = run({qwen}, {engine});
    const Validation both = run({gpt, qwen}, {engine});
    std::multiset<std::string> expected = rules(a);
    expected.merge(rules(b));
    CHECK(rules(both) == expected);
    CHECK(both.details->deployments.size() == 2);
    const Outcome worst = a.outcome() == Outcome::findings ? a.outcome() : b.outcome();
    CHECK(both.outcome() == worst);
  }
  // One of them without a base: the other is judged all the same, and the whole is not green.
  const std::string orphan = folder.adapter("qwen3_moe/per_expert", Json("nobody/knows"));
  const Validation partly = run({qwen, orphan}, {"vllm"});
  CHECK(partly.outcome() == Outcome::not_judged);
  CHECK(has(summary(partly), "in 1 of 2 deployments"));
  CHECK(has(report(partly, "text"), "the deployment of nobody/knows"));
  // Two of one base are one deployment.
  CHECK(run({qwen, qwen}, {"vllm"}).details->deployments.size() == 1);
  const std::string base = folder.base("qwen3_moe");
  const std::string one = folder.adapter("qwen3_moe/per_expert", Json(base));
  const std::string same = folder.adapter("qwen3_moe/per_expert", Json(base + "/."));
  CHECK(run({one, same}, {"vllm"}).details->deployments.size() == 1);
}

TEST_CASE("the good case is a sentence with the flags that it assumes, the bad one is none") {
  Folder folder;
  const std::string base = folder.base("qwen3_moe");
  const std::string adapter = folder.adapter("qwen3_moe/per_expert", Json(base));
  const Validation good = run({adapter}, {"vllm@0.27", "sglang@0.5.18"});
  for (const char* format : {"text", "markdown", "json", "junit", "github", "sarif"}) {
    CAPTURE(format);
    const std::string text = report(good, format);
    CHECK(has(text, "vllm 0.27 serves it whole: "));
    CHECK(has(text, "sglang 0.5.18 serves it whole: "));
    CHECK(has(text, "enable-lora"));
    CHECK(has(text, "max-lora-rank 16"));
  }
  const Validation bad =
      run({folder.adapter("gpt_oss/per_expert", Json(folder.base("gpt_oss")))}, {"vllm@0.27"});
  CHECK(bad.outcome() == Outcome::findings);
  CHECK_FALSE(has(report(bad, "text"), "whole"));
  // A release that is later than all that is known gets no clean bill.
  const Validation later = run({adapter}, {"vllm@main", "vllm@99.0"});
  CHECK(later.outcome() == Outcome::clean);
  CHECK(later.outcome(Severity::warning) == Outcome::findings);
  CHECK_FALSE(has(report(later, "text"), "whole"));
}
