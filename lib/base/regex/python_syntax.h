#pragma once

#include <string>
#include <string_view>

namespace moelora {

constexpr int kDeepestRegexGroup = 200;

// A Python regular expression as PCRE2 (UTF, newline LF) reads it with the same meaning.
struct PcreText {
  std::string text;
  bool ascii_only;  // \d, \w, \s, \b or (?i) stand in it: Unicode's in Python, ASCII's here
};

// Throws Error at the expression for what Python refuses ("is not a valid regular expression:
// ...") and for what is not translated ("... is not evaluated here").
PcreText to_pcre(std::string_view expression);

}  // namespace moelora
