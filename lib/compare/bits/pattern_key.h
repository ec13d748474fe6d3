#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace moelora::packed {

// A key of rank_pattern or alpha_pattern, as PEFT reads it: it names a module when Python's
// re.match("(.*\.)?(KEY)$", path) succeeds. Understands literals, . escapes \d \w \s, [..] [^..],
// groups (..) (?:..), |, the repeats * + ? {m} {m,} {,n} {m,n} (lazy ones too), and ^ and $, the
// two ends of the path; throws Error at `where` for anything else. Matching follows all ways at
// once, in time proportional to key times path: no key can make it backtrack.
class PatternKey {
 public:
  PatternKey(std::string_view key, const std::string& where);

  bool names(std::string_view path) const;

 private:
  enum class Kind : uint8_t { read, jump, start, end };
  // read: a byte of `bytes`, and goes to `next`. Without reading: jump goes to `next` and `other`,
  // start and end to `next` at that end of the path. State kEnd is reached when the key is matched.
  struct State {
    Kind kind;
    uint32_t next, other;
    std::vector<bool> bytes = {};
  };
  struct Ends {
    bool start, end;  // of the path: there now
  };
  static constexpr uint32_t kEnd = 0;

  void reach(uint32_t state, const Ends& ends, std::vector<bool>& reached) const;

  std::vector<State> states_;
  uint32_t start_ = kEnd;

  friend class PatternKeyCompiler;
};

}  // namespace moelora::packed
