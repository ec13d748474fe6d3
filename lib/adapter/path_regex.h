#pragma once

#include <bitset>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace moelora {

// A regular expression of adapter_config.json (pattern keys), matched against a whole module path
// in time proportional to their lengths: a hostile config can neither hang the tool nor overflow
// its stack, as a backtracking engine lets it. Understands what Python's re does of literals, .
// [..] [^..] \d \w \s and their opposites, escapes, ( ) (?: ) | * + ? {m} {m,} {m,n}, lazy marks,
// and ^ $ at the ends. Throws Error naming the expression for anything else (backreferences,
// look-around, \b) and for one of more than some thousand states.
class PathRegex {
 public:
  explicit PathRegex(std::string_view text);

  bool matches(std::string_view path) const;

 private:
  friend class PathRegexCompiler;

  // One instruction: a byte of `bytes`, or a jump to one or two places without reading.
  enum class Kind : uint8_t { byte, jump, split, first, last, match };
  struct State {
    Kind kind;
    uint32_t next = 0, other = 0;  // `byte` goes on to next
    uint32_t bytes = 0;            // index into sets_
  };

  void add(std::vector<uint32_t>& list, std::vector<bool>& seen, uint32_t state, bool at_start,
           bool at_end) const;

  std::vector<State> states_;
  std::vector<std::bitset<256>> sets_;
};

}  // namespace moelora
