#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace moelora {

// How many steps expressions may take on all texts together, and how many of them are left.
struct RegexSteps {
  int64_t most = 60'000'000;  // some 0.3 s
  int64_t left = most;
  bool take(int64_t count) { return (left -= count) >= 0; }
};

// Any number of regular expressions held against any number of texts, each text read once from its
// end to its begin. The states of all expressions form one nondeterministic automaton; the sets of
// them that texts lead to become states of a deterministic one and are kept, so that texts that end
// alike, and differ in numbers that no expression asks for, cost one look-up a character. From the
// end, since names differ there: an expression for down_proj is out after one letter of q_proj.
//
// It takes what is regular: no look-around, reference, word boundary, flag, atomic group or
// possessive repeat. Texts are ASCII without line breaks.
class RegexAutomaton {
 public:
  static constexpr uint32_t kNone = UINT32_MAX;

  // `expression` as to_pcre() writes it. False, and nothing is added, for one that is not regular
  // or whose repeats make it too large.
  bool add(std::string_view expression, uint32_t id);

  // Reads `text`, and calls visit(state, at) where some expressions match text[at..] whole, from
  // the end to the begin. False where that would take more steps than `steps` holds; what it takes
  // is taken off.
  template <class F>
  bool scan(std::string_view text, RegexSteps& steps, F&& visit) {
    std::optional<uint32_t> state = start(text.empty(), steps);
    for (size_t at = text.size(); state; state = step(*state, text[--at], steps)) {
      const bool is_begin = at == 0;
      if (first(*state, is_begin) != kNone) visit(*state, at);
      if (is_begin || states_[*state].nodes->empty()) return true;
    }
    return false;
  }

  // The lowest id of those that match here. `is_begin`: at the text's begin, where '^' holds too.
  uint32_t first(uint32_t state, bool is_begin) const { return states_[state].first[is_begin]; }

  // Sets out[id] for all that match here; a state that was asked before adds nothing and costs
  // nothing. Every state is new after forget().
  void mark(uint32_t state, bool is_begin, std::vector<bool>& out);
  void forget();

 private:
  struct Node {
    enum class Kind : uint8_t { characters, split, begin, end, accept };
    Kind kind;
    uint32_t next = 0, other = 0;          // `other`: of a split; of accept, the id
    std::array<uint64_t, 2> members = {};  // the characters, bit c
  };
  using Set = std::vector<uint32_t>;  // nodes but splits, sorted
  struct Hash {
    size_t operator()(const Set& set) const;
  };
  struct State {
    const Set* nodes;
    std::array<uint32_t, 2> first;        // see first()
    std::array<bool, 2> is_marked = {};   // see mark()
    std::array<uint32_t, 128> next = {};  // kNone: not known yet
  };
  friend class RegexCompiler;

  std::optional<uint32_t> start(bool is_empty, RegexSteps& steps);
  std::optional<uint32_t> step(uint32_t from, char c, RegexSteps& steps);
  std::optional<uint32_t> reach(std::span<const uint32_t> nodes, bool begin, bool end,
                                RegexSteps& steps);
  Set close(std::span<const uint32_t> nodes, bool begin, bool end);
  uint32_t lowest(std::span<const uint32_t> nodes) const;

  std::vector<Node> nodes_;
  std::vector<uint32_t> entries_;  // of the expressions, at the end of texts
  std::vector<State> states_;
  std::unordered_map<Set, uint32_t, Hash> known_;
  size_t held_ = 0;  // nodes in known_
  std::optional<uint32_t> start_;
  std::vector<uint32_t> seen_, open_;  // of close(): the round that saw each node, and what waits
  uint32_t round_ = 0;
  int64_t closed_ = 0;  // nodes that close() looked at
};

}  // namespace moelora
