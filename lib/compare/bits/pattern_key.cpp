#include "lib/compare/bits/pattern_key.h"

#include "lib/base/error.h"
#include "lib/compare/bits/pattern_tree.h"

namespace moelora::packed {
namespace {

constexpr size_t kMostStates = 1 << 12, kMostSteps = 1 << 16;

}  // namespace

// Builds states from the end backwards: each node's states lead to those of what follows it.
class PatternKeyCompiler {
 public:
  PatternKeyCompiler(const std::vector<PatternNode>& nodes, const std::string& where,
                     PatternKey& out)
      : nodes_(nodes), where_(where), out_(out) {
    add({Kind::jump, PatternKey::kEnd, PatternKey::kEnd});
    out_.start_ = before(nodes.size() - 1, PatternKey::kEnd);
  }

 private:
  using Kind = PatternKey::Kind;

  [[noreturn]] void refuse() const {
    throw Error(where_, "a pattern key is too large to be matched");
  }

  uint32_t add(PatternKey::State state) {
    if (out_.states_.size() >= kMostStates) refuse();
    out_.states_.push_back(std::move(state));
    return static_cast<uint32_t>(out_.states_.size() - 1);
  }

  uint32_t before(size_t at, uint32_t next) {
    if (++steps_ > kMostSteps) refuse();  // repeats of nothing add no states
    const PatternNode& node = nodes_[at];
    switch (node.kind) {
      case PatternNode::Kind::bytes:
        return add({Kind::read, next, next, node.bytes});
      case PatternNode::Kind::sequence:
        for (size_t i = node.parts.size(); i-- > 0;) next = before(node.parts[i], next);
        return next;
      case PatternNode::Kind::choice:
        return any_of(node, next);
      case PatternNode::Kind::repeat:
        return repeat(node, next);
      case PatternNode::Kind::start:
        return add({Kind::start, next, next});
      case PatternNode::Kind::end:
        return add({Kind::end, next, next});
    }
    return next;
  }

  uint32_t any_of(const PatternNode& node, uint32_t next) {
    uint32_t out = before(node.parts.back(), next);
    for (size_t i = node.parts.size() - 1; i-- > 0;)
      out = add({Kind::jump, before(node.parts[i], next), out});
    return out;
  }

  uint32_t repeat(const PatternNode& node, uint32_t next) {
    uint32_t out = next;
    if (node.most < 0) {
      out = add({Kind::jump, next, next});
      const uint32_t body = before(node.parts[0], out);
      out_.states_[out].other = body;
    }
    for (int64_t i = node.least; i < node.most; ++i)
      out = add({Kind::jump, before(node.parts[0], out), next});
    for (int64_t i = 0; i < node.least; ++i) out = before(node.parts[0], out);
    return out;
  }

  const std::vector<PatternNode>& nodes_;
  const std::string& where_;
  PatternKey& out_;
  size_t steps_ = 0;
};

PatternKey::PatternKey(std::string_view key, const std::string& where) {
  PatternKeyCompiler(parse_pattern(key, where), where, *this);
}

// Everything reached from `state` without reading.
void PatternKey::reach(uint32_t state, const Ends& ends, std::vector<bool>& reached) const {
  std::vector<uint32_t> todo = {state};
  while (!todo.empty()) {
    const uint32_t at = todo.back();
    todo.pop_back();
    if (reached[at]) continue;
    reached[at] = true;
    const State& s = states_[at];
    if (at == kEnd || s.kind == Kind::read) continue;
    if ((s.kind == Kind::start && !ends.start) || (s.kind == Kind::end && !ends.end)) continue;
    todo.push_back(s.next);
    todo.push_back(s.other);
  }
}

bool PatternKey::names(std::string_view path) const {
  std::vector<bool> now(states_.size(), false), then;
  reach(start_, {true, path.empty()}, now);
  for (size_t i = 0; i < path.size(); ++i) {
    const Ends ends{false, i + 1 == path.size()};
    then.assign(states_.size(), false);
    for (size_t s = 1; s < states_.size(); ++s)
      if (now[s] && states_[s].kind == Kind::read &&
          states_[s].bytes[static_cast<unsigned char>(path[i])])
        reach(states_[s].next, ends, then);
    if (path[i] == '.') reach(start_, ends, then);
    now.swap(then);
  }
  return now[kEnd];
}

}  // namespace moelora::packed
