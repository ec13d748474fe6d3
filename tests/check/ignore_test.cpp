// What the user has decided to live with: waivers, and the project file that holds them.

#include "lib/check/ignore.h"

#include <doctest/doctest.h>
#include <fmt/core.h>

#include <fstream>

#include "tests/check/made_report.h"
#include "tests/io/error_text.h"
#include "tests/io/temp_folder.h"

using namespace moelora;

namespace {

// A rule that is there, whichever are written yet; "" skips what needs one.
std::string some_rule() { return all_rules().empty() ? "" : std::string(all_rules().front()->id); }

class ProjectFile {
 public:
  explicit ProjectFile(const std::string& text) { std::ofstream(path(), std::ios::binary) << text; }
  std::string path() const { return folder_.path() + "/.moelora.json"; }
  Project read() const { return read_project(path()); }
  std::string error() const {
    return error_text([&] { read(); }, folder_.path());
  }
  std::filesystem::path folder() const { return folder_.path(); }

 private:
  TempFolder folder_;
};

std::string error_of(const std::string& text) { return ProjectFile(text).error(); }

}  // namespace

TEST_CASE("a glob's * takes slashes too, and nothing else is special but ?") {
  CHECK(glob_matches("*", ""));
  CHECK(glob_matches("adapters/*", "adapters/a/b"));
  CHECK(glob_matches("*/big-?", "x/y/big-1"));
  CHECK(!glob_matches("*/big-?", "x/y/big-12"));
  CHECK(glob_matches("a*b*c", "aXbYbZc"));
  CHECK(!glob_matches("a*b*c", "aXbYbZ"));
  CHECK(!glob_matches("a", "ab"));
  CHECK(glob_matches("a[b]", "a[b]"));
  CHECK(!glob_matches("", "a"));
  CHECK(!glob_matches(std::string(200, '*') + "b", std::string(20000, 'a')));
}

TEST_CASE("a waiver takes the findings of its rule in the adapters it names") {
  MadeReport made = sound_report();
  made.add(kLoneQ, 0, "in a");
  made.add(kLoneQ, 1, "in b");
  made.add(kDeadPattern, 1, "other rule");
  made.add(kLoneQ, std::nullopt, "of the deployment");
  const std::vector<Waiver> waivers = {{&kLoneQ, "why", "*/b", "p:1:1", ""},
                                       {&kCoverage, "why", "", "p:2:1", ""}};
  const auto waived = take_waived(made.results, made.deployment, waivers);
  REQUIRE(waived.size() == 1);
  CHECK(waived[0].finding.message == "in b");
  CHECK(waived[0].reason == "why");
  REQUIRE(made.results.findings.size() == 3);
  CHECK(made.results.findings[1].message == "other rule");
  const auto stale = unused(waivers, waived);
  REQUIRE(stale.size() == 1);
  CHECK(stale[0]->from == "p:2:1");
}

TEST_CASE("the glob of a project file is meant from its folder, wherever the tool runs") {
  const auto taken = [](const char* folder, const char* glob, const char* given) {
    MadeReport made = sound_report();
    made.deployment.adapters[0].given = given;
    made.add(kLoneQ, 0, "q");
    const std::vector<Waiver> waivers = {{&kLoneQ, "why", glob, "p:1:1", folder}};
    return take_waived(made.results, made.deployment, waivers).size() == 1;
  };
  CHECK(taken("..", "adapters/x", "../adapters/x"));
  CHECK(taken("../", "adapters/x", "../adapters/./y/../x/"));
  CHECK(!taken("", "adapters/*", "../adapters/x"));
  CHECK(taken("", "../adapters/x", "../adapters/x"));
  CHECK(taken("/p", "a", "/p/a"));
  CHECK(!taken("/p/q", "a", "/p/a"));
}

TEST_CASE("a waiver without an adapter takes the deployment's findings too") {
  MadeReport made = sound_report();
  made.add(kMixed, std::nullopt, "of the deployment");
  const std::vector<Waiver> waivers = {{&kMixed, "why", "", "--ignore", ""}};
  CHECK(take_waived(made.results, made.deployment, waivers).size() == 1);
  CHECK(made.results.findings.empty());
}

TEST_CASE("what was not checked is ignored for adapters that are named, and not by the way") {
  MadeReport made = sound_report();
  made.add(kMixed, std::nullopt, "not checked");
  made.results.findings.back().unjudged = true;
  const std::vector<Waiver> waivers = {{&kMixed, "why", "", "--ignore", ""}};
  CHECK(take_waived(made.results, made.deployment, waivers).empty());
  REQUIRE(made.results.findings.size() == 1);
  CHECK(unused_text(waivers[0], made.results).find("not ignored") != std::string::npos);
  const std::vector<Waiver> named = {{&kMixed, "why", "*", ".moelora.json:1:2", ""}};
  CHECK(take_waived(made.results, made.deployment, named).size() == 1);
}

TEST_CASE("the first waiver that covers a finding gives the reason") {
  MadeReport made = sound_report();
  made.add(kLoneQ, 0, "q");
  const std::vector<Waiver> waivers = {{&kLoneQ, "first", "", "p:1:1", ""},
                                       {&kLoneQ, "second", "", "p:2:1", ""}};
  CHECK(take_waived(made.results, made.deployment, waivers)[0].reason == "first");
}

TEST_CASE("a project file gives base, engines, server options and waivers") {
  if (some_rule().empty()) return;
  const ProjectFile file(fmt::format(
      R"({{"base": "openai/gpt-oss-20b", "engines": ["sglang@0.5.18"],
          "server_options": {{"tp-size": 2, "virtual-experts": true, "a": false, "b": "c"}},
          "ignore": [{{"rule": "{}", "reason": "known", "adapter": "a/*"}}]}})",
      some_rule()));
  const Project project = file.read();
  CHECK(project.base == "openai/gpt-oss-20b");
  CHECK(project.engines == std::vector<std::string>{"sglang@0.5.18"});
  CHECK(project.server_options ==
        std::vector<std::string>{"tp-size=2", "virtual-experts=on", "a=off", "b=c"});
  REQUIRE(project.waivers.size() == 1);
  CHECK(project.waivers[0].rule == find_rule(some_rule()));
  CHECK(project.waivers[0].reason == "known");
  CHECK(project.waivers[0].adapter == "a/*");
  CHECK(project.waivers[0].folder == file.folder().string());
  CHECK(project.waivers[0].from == file.path() + ":3:22");
}

TEST_CASE("a base beside the project file is found from anywhere") {
  const ProjectFile file(R"({"base": "base"})");
  CHECK(file.read().base == "base");
  std::filesystem::create_directory(file.folder() / "base");
  CHECK(file.read().base == (file.folder() / "base").string());
}

TEST_CASE("the project file is searched upwards to the repository's root, never in an adapter") {
  namespace fs = std::filesystem;
  const ProjectFile top("{}");
  const fs::path below = top.folder() / "a" / "b";
  fs::create_directories(below);
  const auto write = [](const fs::path& path) { std::ofstream(path) << "{}"; };
  CHECK(find_project_file(top.folder().string()) == ".moelora.json");
  CHECK(find_project_file(below.string()) == "");  // no repository
  fs::create_directory(top.folder() / ".git");
  CHECK(find_project_file(below.string()) == "../../.moelora.json");
  CHECK(find_project_file((below / "").string()) == "../../.moelora.json");
  write(top.folder() / "a" / ".moelora.json");
  CHECK(find_project_file(below.string()) == "../.moelora.json");
  write(top.folder() / "a" / "adapter_config.json");  // what came with an adapter
  CHECK(find_project_file(below.string()) == "../../.moelora.json");
  write(below / ".git");  // a worktree of its own: the root is here
  CHECK(find_project_file(below.string()) == "");
}

TEST_CASE("an empty project is one") { CHECK(ProjectFile("{}").read().waivers.empty()); }

TEST_CASE("a project file is strict, and says where it is wrong") {
  CHECK(error_of("[]") == ".moelora.json:1:1: found an array, expected an object");
  CHECK(error_of(R"({"ignores": []})") ==
        ".moelora.json:1:13: /ignores: unknown key, expected one of: $schema, base, engines, "
        "server_options, ignore");
  CHECK(error_of(R"({"base": 1})") ==
        ".moelora.json:1:10: /base: found an integer, expected a string");
  CHECK(error_of(R"({"base": " "})") == ".moelora.json:1:10: /base: is empty");
  CHECK(error_of(R"({"engines": "sglang"})") ==
        ".moelora.json:1:13: /engines: found a string, expected an array");
  CHECK(error_of(R"({"engines": [1]})") ==
        ".moelora.json:1:14: /engines/0: found an integer, expected a string");
  CHECK(error_of(R"({"server_options": []})") ==
        ".moelora.json:1:20: /server_options: found an array, expected an object");
  CHECK(error_of(R"({"server_options": {"a": []}})") ==
        ".moelora.json:1:26: /server_options/a: found an array, expected a string");
  CHECK(error_of(R"({"ignore": {}})") ==
        ".moelora.json:1:12: /ignore: found an object, expected an array");
  CHECK(error_of(R"({"ignore": ["SGL021"]})") ==
        ".moelora.json:1:13: /ignore/0: found a string, expected an object");
  CHECK(error_of(R"({"ignore": [{"reason": "r"}]})") ==
        ".moelora.json:1:13: /ignore/0: the key \"rule\" is missing");
  CHECK(error_of(R"({"ignore": [{"rule": "XYZ001"}]})") ==
        ".moelora.json:1:13: /ignore/0: the key \"reason\" is missing");
  CHECK(error_of(R"({"ignore": [{"rule": "XYZ001", "reason": ""}]})") ==
        ".moelora.json:1:22: unknown rule 'XYZ001'");
  CHECK(error_of(R"({"ignore": [{"rule": "XYZ001", "why": ""}]})") ==
        ".moelora.json:1:39: /ignore/0/why: unknown key, expected one of: rule, reason, adapter");
  if (!some_rule().empty())
    CHECK(error_of(fmt::format(R"({{"ignore": [{{"rule": "{}", "reason": " "}}]}})",
                               some_rule())) == ".moelora.json:1:42: /ignore/0/reason: is empty");
}
