#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace moelora::packed {

// A key of rank_pattern or alpha_pattern, as PEFT reads it: it names a module when Python's
// re.match("(.*\.)?(KEY)$", path) succeeds. Understands literals, . escapes \d \w \s, [..] [^..],
// groups (..) (?:..), |, the repeats * + ? {m} {m,} {m,n} (lazy ones too) and ^ $ around the whole
// key; throws Error at `where` for anything else. Matching follows all ways at once, in time
// proportional to key times path: no key can make it backtrack.
class PatternKey {
 public:
  PatternKey(std::string_view key, const std::string& where);

  bool names(std::string_view path) const;

 private:
  // Reads a byte of `bytes` and goes to `next`; without `bytes`, goes to `next` and to `other`
  // without reading. The last state, kEnd, is reached when the key is matched.
  struct State {
    std::vector<bool> bytes;
    uint32_t next, other;
  };
  static constexpr uint32_t kEnd = 0;

  void reach(uint32_t state, std::vector<bool>& reached) const;

  std::vector<State> states_;
  uint32_t start_ = kEnd;

  friend class PatternKeyCompiler;
};

}  // namespace moelora::packed
