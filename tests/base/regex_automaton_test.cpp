#include "lib/base/regex/regex_automaton.h"

#include <doctest/doctest.h>

#include <string>

#include "lib/base/regex/python_syntax.h"

using namespace moelora;

// That it matches what Python matches is shown by tests/interop/python_regex_test.py.

namespace {

// Where in `text` the expressions match all that follows, with the first of them: "0:2 5:0".
std::string found(RegexAutomaton& automaton, const std::string& text, RegexSteps steps = {}) {
  std::string out;
  const bool is_whole = automaton.scan(text, steps, [&](uint32_t state, size_t at) {
    out = std::to_string(at) + ":" + std::to_string(automaton.first(state, at == 0)) +
          (out.empty() ? "" : " ") + out;
  });
  return is_whole ? out : "out of steps";
}

std::string found(const std::string& expression, const std::string& text) {
  RegexAutomaton automaton;
  return automaton.add(to_pcre(expression).text, 0) ? found(automaton, text) : "not taken";
}

}  // namespace

TEST_CASE("every place from which an expression takes the rest of the text") {
  CHECK(found("a*b", "aab") == "0:0 1:0 2:0");
  CHECK(found("a{2,3}b", "aaaab") == "1:0 2:0");
  CHECK(found("a{2}", "aaa") == "1:0");
  CHECK(found("a{0,2}", "aaa") == "1:0 2:0 3:0");
  CHECK(found("(ab|c)+", "abcab") == "0:0 2:0 3:0");
  CHECK(found("(ab|c)+?", "abcab") == "0:0 2:0 3:0");
  CHECK(found("[^a-c]\\d", "x1") == "0:0");
  CHECK(found("[^a-c]\\d", "a1") == "");
  CHECK(found("[\\D.]\\W", "..") == "0:0");
  CHECK(found("\\.", "x.") == "1:0");
  CHECK(found("\u00e9|.", "x") == "0:0");
  CHECK(found("", "") == "0:0");
}

TEST_CASE("'^' holds at the begin and '$' at the end, wherever they stand") {
  CHECK(found("^b|ab", "ab") == "0:0");
  CHECK(found("^a", "aa") == "");
  CHECK(found("a$", "aa") == "1:0");
  CHECK(found("a$a", "aa") == "");
  CHECK(found("^$", "") == "0:0");
  CHECK(found("$^", "") == "0:0");
  CHECK(found("$^", "a") == "");
  CHECK(found("(^|b)a\\Z", "ba") == "0:0");
}

TEST_CASE("empty repeats end") {
  CHECK(found("(a*)*b", "ab") == "0:0 1:0");
  CHECK(found("(|a)+b", "aab") == "0:0 1:0 2:0");
  CHECK(found("(){3,}a", "a") == "0:0");
}

TEST_CASE("the first of many expressions counts, and all are marked") {
  RegexAutomaton automaton;
  uint32_t id = 0;
  for (const char* text : {"x+", "^ab", "b|ab", "ab"}) automaton.add(to_pcre(text).text, id++);
  CHECK(found(automaton, "ab") == "0:1 1:2");
  CHECK(found(automaton, "cab") == "1:2 2:2");
  std::vector<bool> named(4);
  RegexSteps steps;
  automaton.forget();
  for (const char* text : {"cab", "ab"})
    automaton.scan(text, steps,
                   [&](uint32_t state, size_t at) { automaton.mark(state, at == 0, named); });
  CHECK(named == std::vector{false, true, true, true});
}

TEST_CASE("what is not regular or too large is not taken, and leaves the others as they were") {
  RegexAutomaton automaton;
  CHECK(automaton.add("a", 0));
  for (const char* text : {"(?=a)a", "(?<!b)a", "(a)\\1", "a\\b", "(?i)a", "(?>a)", "a++",
                           "a{65535}", "((a{999}){999}){999}", "(){65535}", "((){65535}){65535}"})
    CHECK_FALSE(automaton.add(to_pcre(text).text, 1));
  CHECK_FALSE(automaton.add("a)|(b", 1));
  CHECK(found(automaton, "a") == "0:0");
}

TEST_CASE("a text that needs more steps than there are is not answered; known ones cost none") {
  RegexAutomaton automaton;
  automaton.add(to_pcre(".*(a|b|c)*.*7.*z").text, 0);
  CHECK(found(automaton, "x7yz", {10}) == "out of steps");
  CHECK(found(automaton, "x7yz") == "0:0 1:0");
  CHECK(found(automaton, "x7yz", {0}) == "0:0 1:0");
}

TEST_CASE("states that are many are forgotten and found again") {
  RegexAutomaton automaton;
  automaton.add(to_pcre("(a|b)*a(a|b){14}").text, 0);  // 2^15 states
  RegexSteps steps{int64_t{1} << 40};
  int wrong = 0;
  for (uint32_t bits = 0; bits < 1U << 16; ++bits) {
    std::string text;
    for (uint32_t i = 0; i < 16; ++i) text += (bits >> i & 1U) != 0 ? 'a' : 'b';
    bool matches = false;
    automaton.scan(text, steps, [&](uint32_t, size_t at) { matches = at == 0; });
    wrong += matches != (text[1] == 'a') ? 1 : 0;
  }
  CHECK(wrong == 0);
}
