#include "lib/numeric/packed/pattern_key.h"

#include "lib/base/error.h"
#include "lib/numeric/packed/pattern_tree.h"

namespace moelora::packed {
namespace {

constexpr size_t kMostStates = 1 << 12;

}  // namespace

// Builds states from the end backwards: each node's states lead to those of what follows it.
class PatternKeyCompiler {
 public:
  PatternKeyCompiler(const std::vector<PatternNode>& nodes, const std::string& where,
                     PatternKey& out)
      : nodes_(nodes), where_(where), out_(out) {
    add({{}, PatternKey::kEnd, PatternKey::kEnd});
    out_.start_ = before(nodes.size() - 1, PatternKey::kEnd);
  }

 private:
  uint32_t add(PatternKey::State state) {
    if (out_.states_.size() >= kMostStates)
      throw Error(where_, "a pattern key is too large to be matched");
    out_.states_.push_back(std::move(state));
    return static_cast<uint32_t>(out_.states_.size() - 1);
  }

  uint32_t before(size_t at, uint32_t next) {
    const PatternNode& node = nodes_[at];
    switch (node.kind) {
      case PatternNode::Kind::bytes:
        return add({node.bytes, next, next});
      case PatternNode::Kind::sequence:
        for (size_t i = node.parts.size(); i-- > 0;) next = before(node.parts[i], next);
        return next;
      case PatternNode::Kind::choice:
        return any_of(node, next);
      case PatternNode::Kind::repeat:
        return repeat(node, next);
    }
    return next;
  }

  uint32_t any_of(const PatternNode& node, uint32_t next) {
    uint32_t out = before(node.parts.back(), next);
    for (size_t i = node.parts.size() - 1; i-- > 0;)
      out = add({{}, before(node.parts[i], next), out});
    return out;
  }

  uint32_t repeat(const PatternNode& node, uint32_t next) {
    uint32_t out = next;
    if (node.most < 0) {
      out = add({{}, next, next});
      const uint32_t body = before(node.parts[0], out);
      out_.states_[out].other = body;
    }
    for (int64_t i = node.least; i < node.most; ++i)
      out = add({{}, before(node.parts[0], out), next});
    for (int64_t i = 0; i < node.least; ++i) out = before(node.parts[0], out);
    return out;
  }

  const std::vector<PatternNode>& nodes_;
  const std::string& where_;
  PatternKey& out_;
};

PatternKey::PatternKey(std::string_view key, const std::string& where) {
  PatternKeyCompiler(parse_pattern(key, where), where, *this);
}

// Everything reached from `state` without reading.
void PatternKey::reach(uint32_t state, std::vector<bool>& reached) const {
  std::vector<uint32_t> todo = {state};
  while (!todo.empty()) {
    const uint32_t at = todo.back();
    todo.pop_back();
    if (reached[at]) continue;
    reached[at] = true;
    if (at == kEnd || !states_[at].bytes.empty()) continue;
    todo.push_back(states_[at].next);
    todo.push_back(states_[at].other);
  }
}

bool PatternKey::names(std::string_view path) const {
  std::vector<bool> now(states_.size(), false), then;
  reach(start_, now);
  for (const char c : path) {
    then.assign(states_.size(), false);
    for (size_t s = 1; s < states_.size(); ++s)
      if (now[s] && !states_[s].bytes.empty() && states_[s].bytes[static_cast<unsigned char>(c)])
        reach(states_[s].next, then);
    if (c == '.') reach(start_, then);
    now.swap(then);
  }
  return now[kEnd];
}

}  // namespace moelora::packed
