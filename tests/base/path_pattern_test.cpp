#include "lib/base/path_pattern.h"

#include <doctest/doctest.h>

#include "tests/io/error_text.h"

using namespace moelora;

namespace {

// By both ways of asking.
bool names(const std::string& key, const std::string& path) {
  PathPatterns patterns;
  patterns.add(key);
  const bool out = patterns.matches(0, path);
  CHECK(patterns.first_match(path).has_value() == out);
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
  for (const char* key : {"q_proj", "(a*)*[bc]", "k_proj"}) table.add(key, 0);
  CHECK(table.find("x.q_proj") != nullptr);
  CHECK(table.find("x.k_proj") != nullptr);  // soon known not to match
  const std::string path(60, 'a');
  CHECK(error_text([&] { table.find(path); }).starts_with("(a*)*[bc]: could not be evaluated"));
}

TEST_CASE("thousands of plain keys are looked up; more than a thousand expressions are refused") {
  PathPatterns patterns;
  for (int i = 0; i < 20000; ++i)
    patterns.add("model.layers." + std::to_string(i) + ".mlp.experts.down_proj");
  CHECK(patterns.first_match("model.layers.19999.mlp.experts.down_proj") == 19999);
  CHECK(patterns.first_match("model.layers.19999.mlp_experts.down_proj") == 19999);
  CHECK(patterns.first_match("model.layers.20000.mlp.experts.down_proj") == std::nullopt);
  for (int i = 0; i < 1001; ++i) patterns.add("a|" + std::to_string(i));
  CHECK(patterns.first_match("1") == 20001);
  CHECK(error_text([&] { patterns.first_match("b"); }) ==
        "a|1000: stands behind 1000 other expressions, more than are evaluated");
}
