#include "lib/adapter/path_regex.h"

#include <doctest/doctest.h>

#include <random>
#include <regex>

#include "tests/io/error_text.h"

using namespace moelora;

namespace {

bool matches(const std::string& regex, const std::string& path) {
  return PathRegex(regex).matches(path);
}

std::string fault(const std::string& regex) {
  return error_text([&] { PathRegex{regex}; });
}

// A random regular expression of a small alphabet, sound or not.
std::string random_regex(std::mt19937& random) {
  static const std::vector<std::string> kPieces = {
      "a",   "b",   ".",   "1",   "*",    "+",      "?",     "(",      ")", "|", "[ab]",  "[^a]",
      "\\.", "\\d", "\\w", "(?:", "a{2}", "b{1,2}", "[a-c]", ".{0,1}", "a", "b", "(a|b)", "(a.)*"};
  std::string out;
  for (size_t i = 0, n = 1 + random() % 8; i < n; ++i) out += kPieces[random() % kPieces.size()];
  return out;
}

std::string random_path(std::mt19937& random) {
  std::string out;
  for (size_t i = 0, n = random() % 7; i < n; ++i) out += "ab.1c"[random() % 5];
  return out;
}

}  // namespace

TEST_CASE("each construct matches whole paths") {
  struct Row {
    const char *regex, *yes, *no;
  };
  for (const Row& row : std::vector<Row>{{"abc", "abc", "abcd"},
                                         {"a.c", "axc", "ac"},
                                         {"a\\.c", "a.c", "abc"},
                                         {"a|bc", "bc", "ac"},
                                         {"(a|b)c", "bc", "b"},
                                         {"(?:a|b)c", "ac", "c"},
                                         {"a*", "", "b"},
                                         {"a+", "aaa", ""},
                                         {"ab?c", "ac", "abbc"},
                                         {"(ab)*c", "ababc", "abac"},
                                         {"a{2}", "aa", "a"},
                                         {"a{2,}", "aaaa", "a"},
                                         {"a{1,3}", "aaa", "aaaa"},
                                         {"a{0,1}b", "b", "aab"},
                                         {"(a|b){2}", "ba", "bab"},
                                         {"a.*?b", "axxb", "ax"},
                                         {"[ab1-3]", "2", "4"},
                                         {"[^.]", "a", "."},
                                         {"[]a]", "]", "b"},
                                         {"[a-]", "-", "b"},
                                         {"[\\d_]+", "1_2", "a"},
                                         {"\\d+", "12", "1a"},
                                         {"\\w+", "a_1", "a."},
                                         {"\\D", "a", "1"},
                                         {"\\W", ".", "a"},
                                         {"\\s", " ", "s"},
                                         {"^a$", "a", "ab"},
                                         {"x*(^b)", "b", "xb"},
                                         {"(a$|b)c*", "a", "ac"},
                                         {"(^a|b)c", "ac", "aac"},
                                         {"", "", "a"},
                                         {"a||b", "", "ab"},
                                         {"((((a))))", "a", "aa"}}) {
    CAPTURE(row.regex);
    CHECK(matches(row.regex, row.yes));
    CHECK(!matches(row.regex, row.no));
  }
}

TEST_CASE("keys as trainers write them") {
  const std::string path = "model.layers.12.mlp.experts.gate_up_proj";
  CHECK(matches("(.*\\.)?(.*\\.gate_up_proj)", path));
  CHECK(matches("(.*\\.)?(layers\\.(1[0-9]|2[0-3])\\..*)", path));
  CHECK(matches("(.*\\.)?(model\\.layers\\.\\d+\\.mlp\\.experts\\.(gate_up|down)_proj)", path));
  CHECK(!matches("(.*\\.)?(layers\\.([0-9])\\..*)", path));
}

TEST_CASE("it agrees with std::regex wherever both read an expression") {
  std::mt19937 random(7);
  int compared = 0, matched = 0;
  for (int n = 0; n < 4000; ++n) {
    const std::string text = random_regex(random);
    CAPTURE(text);
    std::regex theirs;
    bool sound = true;
    try {
      theirs = std::regex(text, std::regex::ECMAScript);
    } catch (const std::regex_error&) {
      sound = false;
    }
    if (!sound) {
      CHECK(!fault(text).empty());
      continue;
    }
    if (!fault(text).empty()) continue;
    for (int i = 0; i < 8; ++i) {
      const std::string path = random_path(random);
      CAPTURE(path);
      const bool ours = matches(text, path);
      CHECK(ours == std::regex_match(path, theirs));
      ++compared;
      matched += ours ? 1 : 0;
    }
  }
  CHECK(compared > 10000);
  CHECK(matched > 500);
}

TEST_CASE("what a backtracking engine takes forever or overflows its stack for is soon answered") {
  const std::string path(100000, 'a');
  CHECK(!matches("(.*\\.)?((a*)*(a|a)*b)", path));
  CHECK(!matches("(a|a|a|a|a)*(a*)*(a+)+$b", path));
  CHECK(matches(".*", path));
}

TEST_CASE("what is not read is named with the expression") {
  const auto refused = [](const std::string& regex, const std::string& what) {
    CAPTURE(regex);
    CHECK(fault(regex) == regex + ": this pattern key has " + what + ", which is not read here");
    CHECK(!error_hint([&] { PathRegex{regex}; }).empty());
  };
  refused("(a", "an unbalanced (");
  refused("a)", "an unbalanced )");
  refused("[a", "an unbalanced [");
  refused("*a", "a repetition of nothing");
  refused("a|*", "a repetition of nothing");
  refused("a\\", "a \\ at its end");
  refused("(?=a)", "(? other than (?:");
  refused("(?i)a", "(? other than (?:");
  refused("(a)\\1", "\\1");
  refused("a\\b", "\\b");
  refused("a**", "a doubled repetition");
  refused("a{b}", "a { that counts nothing");
  refused("a{2,1}", "a reversed range");
  refused("[b-a]", "a reversed range");
  refused("a{1001}", "too many repetitions");
  refused("(a{999}){999}", "too many repetitions");
  CHECK(fault(std::string(200, '(') + std::string(200, ')'))
            .ends_with("groups nested too deep, which is not read here"));
}
