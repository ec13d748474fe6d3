#include "lib/base/regex/python_regex.h"

#include <doctest/doctest.h>

#include "tests/io/error_text.h"

using namespace moelora;

// That it matches what Python matches is shown by tests/interop/python_regex_test.py.

namespace {

std::string fault(const std::string& text) {
  return error_text([&] { PythonRegex{text}; });
}

std::string fault_on(const std::string& text, const std::string& path) {
  return error_text([&] { PythonRegex(text).match(path); });
}

}  // namespace

TEST_CASE("fullmatch takes the whole path, match its beginning") {
  const PythonRegex regex("model|model\\.layers");
  CHECK(regex.fullmatch("model.layers"));
  CHECK_FALSE(regex.fullmatch("model.layers.0"));
  CHECK(regex.match("model.layers.0"));
  CHECK_FALSE(regex.match("a.model"));
}

TEST_CASE("what PCRE2 would read otherwise means what it means in Python") {
  CHECK(PythonRegex("q{,2}_proj").fullmatch("qq_proj"));
  CHECK_FALSE(PythonRegex("q{,2}_proj").fullmatch("q{,2}_proj"));
  CHECK(PythonRegex("q{").fullmatch("q{"));
  CHECK(PythonRegex("[[:alpha:]]").fullmatch("a]"));
  CHECK_FALSE(PythonRegex("[[:alpha:]]").fullmatch("z"));
  CHECK(PythonRegex("a\\Z").fullmatch("a"));
  CHECK_FALSE(PythonRegex("a\\Z").match("a\n"));
  CHECK(PythonRegex("a$").match("a\n"));
  CHECK(PythonRegex("\\x41\\102\\v").fullmatch("AB\v"));
  CHECK(PythonRegex("\\s").fullmatch("\x1c"));
  CHECK(PythonRegex("(?P<n>a|b)\\.(?P=n)").fullmatch("b.b"));
  CHECK(PythonRegex("é.").fullmatch("éä"));
}

TEST_CASE("what Python refuses is refused with its reason") {
  const auto refused = [](const std::string& text, const std::string& why) {
    CAPTURE(text);
    CHECK(fault(text) == text + ": is not a valid regular expression: " + why);
    CHECK(!error_hint([&] { PythonRegex{text}; }).empty());
  };
  refused("(a", "missing ), unterminated subpattern");
  refused("a)", "unbalanced parenthesis");
  refused("[a", "unterminated character set");
  refused("*a", "nothing to repeat");
  refused("^*", "nothing to repeat");
  refused("a**", "multiple repeat");
  refused("a{2}{3}", "multiple repeat");
  refused("a{2,1}", "min repeat greater than max repeat");
  refused("[b-a]", "bad character range");
  refused("[\\d-z]", "bad character range");
  refused("a\\", "it ends in a backslash");
  refused("(a)\\2", "no group 2");
  refused("(a\\1)", "group 1 is referred to inside itself");
  refused("(?<=a*)b", "look-behind requires fixed-width pattern");
  refused("(?<=a|bc)d", "look-behind requires fixed-width pattern");
  refused("a(?i)b", "global flags not at the start of the expression");
  refused("(?P>n)", "unknown extension ?P");
  for (const char* pcre : {"\\K", "\\Q", "\\E", "\\G", "\\R", "\\h", "\\C", "\\p{L}", "\\z"})
    refused(pcre, std::string("bad escape ") + std::string(pcre).substr(0, 2));
  refused("(*ACCEPT)", "nothing to repeat");
  refused("\xff", "it is not UTF-8");
}

TEST_CASE("what is not evaluated is refused by its name") {
  CHECK(fault("(?x) a") == "(?x) a: verbose mode, (?x), is not evaluated here");
  CHECK(fault("\\N{DOT}") == "\\N{DOT}: \\N{NAME} is not evaluated here");
  CHECK(fault("a{65536}") == "a{65536}: a repeat of more than 65535 is not evaluated here");
  CHECK(fault(std::string(201, '(') + std::string(201, ')'))
            .ends_with(": nesting of groups this deep is not evaluated here"));
  CHECK(fault(std::string(150, '(') + std::string(150, ')')).empty());
  CHECK(fault("(?i)é") == "(?i)é: ignoring the case of letters beyond ASCII is not evaluated here");
  CHECK(!fault("((a{999}){999}){999}").empty());
}

TEST_CASE("a match that Unicode's classes could change is not guessed") {
  CHECK(PythonRegex("\\w+").fullmatch("q_proj"));
  CHECK(fault_on("\\w+", "é") == "\\w+: is not evaluated on 'é', which is not ASCII");
  CHECK(PythonRegex("[^a]").fullmatch("é"));
}

TEST_CASE("an expression that would backtrack for years is said to be one, and soon") {
  const std::string path(60, 'a');
  CHECK(fault_on("(a*)*[bc]", path) ==
        "(a*)*[bc]: could not be evaluated on '" + path + "': match limit exceeded");
  CHECK(!fault_on("(?:a|a)*(?:a*)*(?:a+)+[bc]", std::string(10000, 'a')).empty());
  CHECK_FALSE(PythonRegex("(?:a|a)*(?:a*)*(?:a+)+[bc]").fullmatch(std::string(10000, 'a')));
  const PythonRegex regex("(?=(a*)*)[bc]", RegexSteps{100'000});
  const auto often = [&] {
    while (!regex.fullmatch("aaaa")) continue;
  };
  CHECK(error_text(often) ==
        "(?=(a*)*)[bc]: takes more than 100000 steps on all modules together, which are not taken");
  CHECK(PythonRegex(".*").fullmatch(std::string(10000, 'a')));
}
