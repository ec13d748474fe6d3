#include "lib/base/regex/path_pattern.h"

#include <doctest/doctest.h>

#include "tests/io/error_text.h"

using namespace moelora;

namespace {

// By both ways of asking.
bool names(const std::string& key, const std::string& path) {
  PathPatterns patterns;
  patterns.add(key);
  const bool out = patterns.first_match(path).has_value();
  const std::vector<PathPatterns::Use> uses = patterns.uses(std::vector{path});
  CHECK(uses.at(0).names == out);
  CHECK(uses.at(0).fault.empty());
  return out;
}

}  // namespace

// peft/utils/other.py get_pattern_key: re.match(rf"(.*\.)?({key})$", name).
TEST_CASE("a pattern key is a regular expression over whole trailing components") {
  const std::string path = "model.layers.0.mlp.experts.down_proj";
  CHECK(names("down_proj", path));
  CHECK(names("experts.down_proj", path));
  CHECK(names("mlp.experts.down_proj", path));
  CHECK(names(path, path));
  CHECK(names(".*\\.down_proj", path));
  CHECK(names("(gate_up|down)_proj", path));
  CHECK(names("layers.[0-3].mlp.experts.down_proj", path));
  CHECK(names("gate_up_proj|down_proj", path));
  CHECK(names("layers.0.*", path));
  CHECK(names("mlp.experts.down.proj", path));  // '.' is any character, as in a regex
  SUBCASE("not in the middle of a component") {
    CHECK(!names("proj", path));
    CHECK(!names("own_proj", path));
    CHECK(!names("[o]wn_proj", path));
    CHECK(!names("(x|perts).down_proj", path));
    CHECK(!names("xperts.down_proj", path));
    CHECK(!names("gate_proj", "model.layers.0.mlp.up_gate_proj"));
  }
  SUBCASE("not anywhere but at the end") {
    CHECK(!names("experts", path));
    CHECK(!names("mlp", path));
    CHECK(!names("layers.0", path));
    CHECK(!names("down_proj", path + ".lora_A"));
  }
  SUBCASE("longer than the path") { CHECK(!names("x." + path, path)); }
  SUBCASE("one layer, not those that end with the same digit") {
    CHECK(names("7.mlp.experts.down_proj", "model.layers.7.mlp.experts.down_proj"));
    CHECK(!names("7.mlp.experts.down_proj", "model.layers.17.mlp.experts.down_proj"));
  }
  SUBCASE("a key that is not a regular expression is an error that names it") {
    CHECK(error_text([] { names("(down", "a.down"); }) ==
          "(down: is not a valid regular expression: missing ), unterminated subpattern");
    CHECK(!error_hint([] { names("(down", "a.down"); }).empty());
  }
}

TEST_CASE("the first key of the file decides, plain or not") {
  PatternTable<int> table;
  for (const char* key :
       {"experts\\.1\\.w1", "w1", "experts.2.w1", ".*gate_up_proj", "gate_up_proj"})
    table.add(key, static_cast<int>(table.size()));
  CHECK(*table.find("model.experts.1.w1") == 0);
  CHECK(*table.find("model.experts.2.w1") == 1);
  CHECK(*table.find("mlp.experts.gate_up_proj") == 3);
  CHECK(table.find("mlp.experts.down_proj") == nullptr);
  CHECK(*table.find("experts.2xw1\n") ==
        2);  // '.' is any character, $ stands before a last line break
}

TEST_CASE(
    "a key that cannot be evaluated is an error where PEFT would come to it, and only there") {
  PatternTable<int> table;
  for (const char* key : {"q_proj", "(?=(a*)*[bc])a", "k_proj"}) table.add(key, 0);
  CHECK(table.find("x.q_proj") != nullptr);
  CHECK(table.find("x.k_proj") != nullptr);  // soon known not to match
  const std::string path(60, 'a');
  CHECK(
      error_text([&] { table.find(path); }).starts_with("(?=(a*)*[bc])a: could not be evaluated"));
  const auto uses = table.keys().uses(std::vector<std::string>{"x.k_proj", path});
  CHECK(uses[1].fault.starts_with("could not be evaluated"));
  CHECK((uses[2].names && uses[2].fault.empty()));
  CHECK((!uses[0].names && uses[0].fault.empty()));
}

TEST_CASE(
    "thousands of plain keys are looked up; more than a thousand that backtrack are refused") {
  PathPatterns patterns;
  for (int i = 0; i < 20000; ++i)
    patterns.add("model.layers." + std::to_string(i) + ".mlp.experts.down_proj");
  CHECK(patterns.first_match("model.layers.19999.mlp.experts.down_proj") == 19999);
  CHECK(patterns.first_match("model.layers.19999.mlp_experts.down_proj") == 19999);
  CHECK(patterns.first_match("model.layers.20000.mlp.experts.down_proj") == std::nullopt);
  for (int i = 0; i < 1001; ++i) patterns.add("a|" + std::to_string(i));
  CHECK(patterns.first_match("1000") == 21000);
  for (int i = 0; i < 1001; ++i) patterns.add("(?=x)x" + std::to_string(i));
  CHECK(patterns.first_match("1") == 20001);
  CHECK(error_text([&] { patterns.first_match("b"); }) ==
        "(?=x)x1000: stands behind 1000 other expressions with look-around, references or faults, "
        "more than are evaluated");
}

TEST_CASE("copies of a table answer as it does, and one that grows leaves the other alone") {
  PathPatterns patterns;
  patterns.add(".*\\.up");
  PathPatterns grown = patterns;
  grown.add("(q|k)_proj");
  CHECK(patterns.first_match("x.q_proj") == std::nullopt);
  CHECK(grown.first_match("x.q_proj") == 1);
  CHECK((patterns.first_match("x.up") == 0 && grown.first_match("x.up") == 0));
}

TEST_CASE("what the steps of a table do not answer is refused, and told of each key") {
  const auto busy = [](const std::vector<std::string>& keys, const std::string& path) {
    PathPatterns patterns(RegexSteps{1'000'000});
    for (const std::string& key : keys) patterns.add(key);
    std::vector<std::string> paths(2'000, path);
    for (size_t i = 0; i < paths.size(); ++i) paths[i] += std::to_string(i);
    const auto uses = patterns.uses(paths);
    CHECK(!uses.front().names);
    return uses.front().fault;
  };
  const std::string steps = "1000000 steps";
  SUBCASE("look-around") {
    const std::vector<std::string> keys(200, "(?=(a*)*)[bc]");
    CHECK(busy(keys, "aaaa").find(steps) != std::string::npos);
  }
  SUBCASE("plain keys of one length with dots everywhere") {
    std::vector<std::string> keys;
    for (int bits = 0; bits < 1 << 12; ++bits) {
      keys.emplace_back();
      for (int i = 0; i < 12; ++i) keys.back() += (bits >> i & 1) != 0 ? '.' : 'a';
    }
    CHECK(busy(keys, "bbbbbbbb").find(steps) != std::string::npos);  // 12 letters with 1000 to 1999
  }
}
