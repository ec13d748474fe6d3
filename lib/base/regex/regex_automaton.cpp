#include "lib/base/regex/regex_automaton.h"

#include <algorithm>
#include <charconv>
#include <utility>

namespace moelora {
namespace {

constexpr size_t kMostNodes = 1'000'000;    // of all expressions together
constexpr size_t kMostNodesOfOne = 20'000;  // and steps of its compilation
constexpr size_t kMostStates = 10'000;      // that are kept, half a kB each
constexpr size_t kMostHeld = 2'000'000;     // nodes in them
constexpr int64_t kStepsOfNode = 8;         // that a new state has: it is reached, sorted, hashed

bool is_word(char c) {
  return (c >= '0' && c <= '9') || (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z') || c == '_';
}

}  // namespace

// Reads what to_pcre() writes and appends the nodes of one expression. As texts are read from the
// end, each part leads on to what stands before it: one pass over the expression builds that.
class RegexCompiler {
 public:
  RegexCompiler(std::string_view text, std::vector<RegexAutomaton::Node>& nodes)
      : text_(text), nodes_(nodes), most_(std::min(kMostNodes, nodes.size() + kMostNodesOfOne)) {}

  // Where a text's end enters; nullopt for what the automaton does not take.
  std::optional<uint32_t> compile(uint32_t id) {
    const uint32_t out = alternatives(add({Kind::accept, 0, id}));
    if (at_ < text_.size()) fails_ = true;
    return fails_ ? std::nullopt : std::optional(out);
  }

 private:
  using Node = RegexAutomaton::Node;
  using Kind = Node::Kind;
  using Members = std::array<uint64_t, 2>;

  uint32_t add(Node node) {
    if (nodes_.size() >= most_) fails_ = true;
    if (!fails_) nodes_.push_back(node);
    return static_cast<uint32_t>(nodes_.size() - 1);
  }
  uint32_t give_up() {
    fails_ = true;
    return 0;
  }

  char peek() const { return at_ < text_.size() ? text_[at_] : '\0'; }
  bool take(std::string_view word) {
    if (!text_.substr(at_).starts_with(word)) return false;
    at_ += word.size();
    return true;
  }

  uint32_t alternatives(uint32_t before) {
    uint32_t out = sequence(before);
    while (!fails_ && take("|")) out = add({Kind::split, out, sequence(before)});
    return out;
  }

  uint32_t sequence(uint32_t before) {
    while (!fails_ && at_ < text_.size() && peek() != '|' && peek() != ')') before = part(before);
    return before;
  }

  uint32_t part(uint32_t before) {
    if (++parts_ > kMostNodesOfOne) return give_up();
    if (take("(?:")) return group(before);
    if (peek() == '(' && !text_.substr(at_).starts_with("(?")) {
      ++at_;
      return group(before);
    }
    if (take("^") || take("\\A")) return add({Kind::begin, before});
    if (take("$") || take("\\z")) return add({Kind::end, before});
    Members members = {};
    if (take("."))
      members = {~uint64_t{0}, ~uint64_t{0}};
    else if (take("["))
      members = bracket();
    else if (const auto c = character())
      put(*c, *c, members);
    return fails_ ? 0 : add({Kind::characters, before, 0, members});
  }

  // One whose parenthesis is read; only groups are repeated.
  uint32_t group(uint32_t before) {
    const size_t body = at_;
    const uint32_t once = alternatives(before);
    if (!take(")")) return give_up();
    const size_t end = at_;
    if (!take("{")) return once;
    const size_t least = number();
    const bool is_range = take(",");
    const bool is_endless = is_range && peek() == '}';
    const size_t most = is_range && !is_endless ? number() : least;
    if (!take("}") || peek() == '+') return give_up();
    take("?");
    const size_t behind = at_;
    const auto again = [&](uint32_t from) {
      at_ = body;
      return alternatives(from);
    };
    uint32_t out = before;
    if (is_endless) {
      out = add({Kind::split, before, before});
      const uint32_t loop = again(out);
      if (!fails_) nodes_[out].other = loop;
    } else {
      for (size_t i = least; i < most && !fails_; ++i) out = add({Kind::split, again(out), before});
    }
    for (size_t i = 0; i < least && !fails_; ++i) out = again(out);
    at_ = std::max(behind, end);
    return out;
  }

  size_t number() {
    size_t out = 0;
    const char* const from = text_.data() + at_;
    const auto [to, fault] = std::from_chars(from, text_.data() + text_.size(), out);
    if (fault != std::errc()) fails_ = true;
    at_ += static_cast<size_t>(to - from);
    return out;
  }

  // A word character, or \x{...}; those beyond ASCII are in no text.
  std::optional<uint32_t> character() {
    if (is_word(peek())) return static_cast<uint32_t>(text_[at_++]);
    uint32_t out = 0;
    if (!take("\\x{")) return give_up(), std::nullopt;
    const char* const from = text_.data() + at_;
    const auto [to, fault] = std::from_chars(from, text_.data() + text_.size(), out, 16);
    at_ += static_cast<size_t>(to - from);
    if (fault != std::errc() || !take("}")) return give_up(), std::nullopt;
    return out;
  }

  static void put(uint32_t low, uint32_t high, Members& members) {
    for (uint32_t c = low; c <= high && c < 128; ++c) members[c / 64] |= uint64_t{1} << c % 64;
  }

  // The class whose bracket is read.
  Members bracket() {
    Members out = {};
    const bool is_not = take("^");
    while (!fails_ && !take("]")) {
      if (named(out)) continue;
      const auto low = character();
      const auto high = take("-") ? character() : low;
      if (low && high) put(*low, *high, out);
    }
    if (is_not)
      for (uint64_t& half : out) half = ~half;
    return out;
  }

  // \d \w and their opposites.
  bool named(Members& members) {
    for (const std::string_view name : {"\\d", "\\D", "\\w", "\\W"}) {
      if (!take(name)) continue;
      const auto has = [&](char c) {
        return name[1] == 'd' || name[1] == 'D' ? c >= '0' && c <= '9' : is_word(c);
      };
      const bool is_not = name[1] == 'D' || name[1] == 'W';
      for (uint32_t c = 0; c < 128; ++c)
        if (has(static_cast<char>(c)) != is_not) put(c, c, members);
      return true;
    }
    return false;
  }

  std::string_view text_;
  std::vector<Node>& nodes_;
  size_t most_, at_ = 0, parts_ = 0;
  bool fails_ = false;
};

size_t RegexAutomaton::Hash::operator()(const Set& set) const {
  uint64_t out = 0x9E3779B97F4A7C15U;
  for (const uint32_t node : set) out = (out ^ node) * 0xFF51AFD7ED558CCDU + (out >> 29U);
  return out;
}

bool RegexAutomaton::add(std::string_view expression, uint32_t id) {
  const size_t before = nodes_.size();
  const auto entry = RegexCompiler(expression, nodes_).compile(id);
  if (!entry) {
    nodes_.resize(before);
    return false;
  }
  entries_.push_back(*entry);
  forget();
  return true;
}

void RegexAutomaton::forget() {
  states_.clear();
  known_.clear();
  held_ = 0;
  start_.reset();
}

// All that is reached from `nodes` without a character but splits, sorted.
RegexAutomaton::Set RegexAutomaton::close(std::span<const uint32_t> nodes, bool begin, bool end) {
  Set out;
  ++round_;
  seen_.resize(nodes_.size(), 0);
  open_.assign(nodes.begin(), nodes.end());
  for (closed_ = 0; !open_.empty(); ++closed_) {
    const uint32_t at = open_.back();
    open_.pop_back();
    if (std::exchange(seen_[at], round_) == round_) continue;
    const Node& here = nodes_[at];
    if (here.kind == Node::Kind::split) open_.push_back(here.other);
    if (here.kind == Node::Kind::split || (here.kind == Node::Kind::begin && begin) ||
        (here.kind == Node::Kind::end && end))
      open_.push_back(here.next);
    if (here.kind != Node::Kind::split && here.kind != Node::Kind::end) out.push_back(at);
  }
  std::sort(out.begin(), out.end());
  return out;
}

std::optional<uint32_t> RegexAutomaton::start(bool is_empty, RegexSteps& steps) {
  if (is_empty) return reach(entries_, true, true, steps);
  if (!start_) start_ = reach(entries_, false, true, steps);
  return start_;
}

std::optional<uint32_t> RegexAutomaton::step(uint32_t from, char c, RegexSteps& steps) {
  const auto at = static_cast<size_t>(c);
  if (const uint32_t known = states_[from].next[at]; known != kNone) return known;
  const Set& nodes = *states_[from].nodes;
  if (!steps.take(static_cast<int64_t>(nodes.size()))) return std::nullopt;
  Set targets;
  for (const uint32_t node : nodes)
    if (const Node& here = nodes_[node];
        here.kind == Node::Kind::characters && (here.members[at / 64] >> at % 64 & 1U) != 0)
      targets.push_back(here.next);
  const size_t kept = states_.size();
  const auto to = reach(targets, false, false, steps);
  if (to && states_.size() >= kept) states_[from].next[at] = *to;  // else `from` was forgotten
  return to;
}

// The state of what is reached from `nodes` without a character; nullopt once out of steps.
std::optional<uint32_t> RegexAutomaton::reach(std::span<const uint32_t> nodes, bool begin, bool end,
                                              RegexSteps& steps) {
  if (steps.left < 0) return std::nullopt;
  Set set = close(nodes, begin, end);
  if (!steps.take(kStepsOfNode * closed_)) return std::nullopt;
  if (const auto found = known_.find(set); found != known_.end()) return found->second;
  if (states_.size() >= kMostStates || held_ + set.size() > kMostHeld) forget();
  State state{nullptr, {kNone, kNone}};
  state.next.fill(kNone);
  state.first[0] = lowest(set);
  const auto is_begin = [&](uint32_t node) { return nodes_[node].kind == Node::Kind::begin; };
  state.first[1] = std::none_of(set.begin(), set.end(), is_begin) ? state.first[0]
                                                                  : lowest(close(set, true, false));
  held_ += set.size();
  const auto id = static_cast<uint32_t>(states_.size());
  state.nodes = &known_.emplace(std::move(set), id).first->first;
  states_.push_back(state);
  return id;
}

uint32_t RegexAutomaton::lowest(std::span<const uint32_t> nodes) const {
  uint32_t out = kNone;
  for (const uint32_t node : nodes)
    if (nodes_[node].kind == Node::Kind::accept) out = std::min(out, nodes_[node].other);
  return out;
}

void RegexAutomaton::mark(uint32_t state, bool is_begin, std::vector<bool>& out) {
  if (std::exchange(states_[state].is_marked[is_begin], true)) return;
  for (const uint32_t node : close(*states_[state].nodes, is_begin, false))
    if (nodes_[node].kind == Node::Kind::accept) out[nodes_[node].other] = true;
}

}  // namespace moelora
