#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

#include "lib/base/regex/regex_automaton.h"

struct pcre2_real_code_8;

namespace moelora {

// One byte per character, and each what '.' may stand for: what RegexAutomaton takes.
bool is_plain_path(std::string_view path);

// A regular expression as Python's `re` (3.11) reads it, which is what PEFT hands the strings of
// adapter_config.json to. PCRE2 matches; what it would read otherwise than Python is translated
// ({,n}, \Z, \v, octal escapes, a [ in a class, (?P=name) ...) or refused by name.
//
// What is regular is matched by an automaton, in time that grows with the path alone; look-around,
// references and their like by backtracking, whose steps are counted and limited.
//
// \d \w \s \b and ignoring case are Unicode's in Python. Here they are ASCII's, and a match that
// would depend on the difference is refused instead of guessed.
class PythonRegex {
 public:
  // Throws Error at `text`: "is not a valid regular expression: ..." for what Python refuses too,
  // "... is not evaluated here" for what it would take (verbose mode, \N{NAME}, repeats over 65535,
  // groups nested deeper than 200).
  explicit PythonRegex(std::string_view text, RegexSteps steps = {});

  // re.fullmatch(text, path) and re.match(text, path). Throws Error at the expression where it
  // cannot be evaluated on this path: too many steps (some patterns would keep Python busy for
  // years), here or on all paths so far; or a path beyond ASCII with an expression that Unicode's
  // classes matter to.
  bool fullmatch(std::string_view path) const;
  bool match(std::string_view path) const;
  // The same by backtracking alone, from the steps of others.
  bool match(std::string_view path, RegexSteps& steps) const;

  const std::string& text() const { return text_; }
  int64_t bytes() const;  // that the compiled expression takes

 private:
  struct Automaton;

  bool run(std::string_view path, uint32_t options, RegexSteps& steps) const;

  std::string text_;
  bool ascii_only_ = false;  // where paths must be ASCII
  std::shared_ptr<const pcre2_real_code_8> code_;
  std::shared_ptr<Automaton> automaton_;  // of copies too
};

}  // namespace moelora
