#include "lib/compare/bits/pattern_tree.h"

#include <fmt/format.h>

#include <optional>

#include "lib/base/error.h"

namespace moelora::packed {
namespace {

constexpr size_t kLongestKey = 4096;
constexpr int64_t kMostRepeats = 64;
constexpr int kDeepestGroup = 32;

using Bytes = std::vector<bool>;
using Node = PatternNode;

Bytes no_bytes() { return Bytes(256, false); }

void add_range(Bytes& bytes, unsigned char first, unsigned char last) {
  for (unsigned c = first; c <= last; ++c) bytes[c] = true;
}

Bytes one(char c) {
  Bytes out = no_bytes();
  out[static_cast<unsigned char>(c)] = true;
  return out;
}

// \d, \w and \s; nullopt for another letter.
std::optional<Bytes> named_class(char letter) {
  Bytes out = no_bytes();
  if (letter == 'd' || letter == 'w') add_range(out, '0', '9');
  if (letter == 'w') {
    add_range(out, 'a', 'z');
    add_range(out, 'A', 'Z');
    out['_'] = true;
  }
  if (letter == 's')
    for (const char c : {' ', '\t', '\n', '\r', '\f', '\v'})
      out[static_cast<unsigned char>(c)] = true;
  if (letter != 'd' && letter != 'w' && letter != 's') return std::nullopt;
  return out;
}

bool is_letter_or_digit(char c) { return (*named_class('w'))[static_cast<unsigned char>(c)]; }

class Parser {
 public:
  Parser(std::string_view key, const std::string& where) : key_(key), where_(where) {}

  // The root is the last node.
  std::vector<Node> parse() {
    if (key_.size() > kLongestKey) refuse("is too long");
    choice();
    if (!at_end()) refuse("has an unpaired parenthesis");
    return std::move(nodes_);
  }

 private:
  using Kind = Node::Kind;

  [[noreturn]] void refuse(std::string_view what) const {
    throw Error(where_, fmt::format("the pattern key \"{}\" {}", key_, what));
  }

  bool at_end() const { return at_ >= key_.size(); }
  bool next_is(char c) const { return !at_end() && key_[at_] == c; }
  bool take(char c) {
    if (!next_is(c)) return false;
    ++at_;
    return true;
  }
  char any() {
    if (at_end()) refuse("ends where a character is expected");
    return key_[at_++];
  }

  size_t add(Node node) {
    nodes_.push_back(std::move(node));
    return nodes_.size() - 1;
  }

  size_t choice() {
    if (++depth_ > kDeepestGroup) refuse("nests its groups too deeply");
    Node node{Kind::choice};
    do {
      node.parts.push_back(sequence());
    } while (take('|'));
    --depth_;
    return add(std::move(node));
  }

  size_t sequence() {
    Node node{Kind::sequence};
    while (!at_end() && !next_is('|') && !next_is(')')) node.parts.push_back(repeat());
    return add(std::move(node));
  }

  size_t repeat() {
    const bool zero_width = next_is('^') || next_is('$');
    const size_t node = atom();
    const auto times = repeats();
    if (!times) return node;
    if (zero_width || repeats()) refuse("repeats what cannot be repeated");
    return add({Kind::repeat, {}, {node}, times->first, times->second});
  }

  using Times = std::pair<int64_t, int64_t>;

  std::optional<Times> repeats() {
    std::optional<Times> out;
    if (take('*'))
      out = {0, -1};
    else if (take('+'))
      out = {1, -1};
    else if (take('?'))
      out = {0, 1};
    else
      out = braces();
    if (out) take('?');  // lazy: the same language
    return out;
  }

  // {m}, {m,}, {,n}, {m,n}, {,}; another brace is a character.
  std::optional<Times> braces() {
    const size_t before = at_;
    if (!take('{') || next_is('}')) return at_ = before, std::nullopt;
    const auto least = count();
    const auto most = take(',') ? count().value_or(-1) : least.value_or(-1);
    if (!take('}')) return at_ = before, std::nullopt;
    if (most >= 0 && most < least.value_or(0)) refuse("has a repeat that is not understood");
    return Times{least.value_or(0), most};
  }

  std::optional<int64_t> count() {
    const auto is_digit = [&] { return !at_end() && key_[at_] >= '0' && key_[at_] <= '9'; };
    if (!is_digit()) return std::nullopt;
    int64_t value = 0;
    while (is_digit()) {
      value = 10 * value + (key_[at_++] - '0');
      if (value > kMostRepeats) refuse("repeats too often");
    }
    return value;
  }

  size_t atom() {
    if (braces()) refuse("repeats nothing");
    const char c = any();
    if (c == '(') return group();
    if (c == '[') return add({Kind::bytes, bracket()});
    if (c == '\\') return add({Kind::bytes, escape()});
    if (c == '.') {
      Bytes all(256, true);
      all['\n'] = false;
      return add({Kind::bytes, std::move(all)});
    }
    if (c == '^') return add({Kind::start});
    if (c == '$') return add({Kind::end});
    if (c == '*' || c == '+' || c == '?') refuse(fmt::format("has a {} of nothing", c));
    return add({Kind::bytes, one(c)});
  }

  size_t group() {
    if (take('?') && !take(':')) refuse("has a group of a kind that is not understood");
    const size_t inner = choice();
    if (!take(')')) refuse("has an unpaired parenthesis");
    return inner;
  }

  Bytes escape() {
    const char c = any();
    if (auto known = named_class(c)) return *known;
    if (auto known = named_class(static_cast<char>(c | 0x20)); known && c < 'a') {
      known->flip();
      return *known;
    }
    if (is_letter_or_digit(c)) refuse(fmt::format("has \\{}, which is not understood", c));
    return one(c);
  }

  Bytes bracket() {
    const bool negated = take('^');
    Bytes out = no_bytes();
    for (bool first = true; first || !next_is(']'); first = false) add_item(out);
    take(']');
    if (negated) out.flip();
    return out;
  }

  void add_item(Bytes& out) {
    const char c = any();
    if (c == '\\') {
      const Bytes escaped = escape();
      for (size_t i = 0; i < 256; ++i)
        if (escaped[i]) out[i] = true;
      return;
    }
    char last = c;
    if (next_is('-') && at_ + 1 < key_.size() && key_[at_ + 1] != ']') {
      ++at_;
      last = any();
    }
    if (static_cast<unsigned char>(last) < static_cast<unsigned char>(c) || last == '\\')
      refuse("has a range that is not understood");
    add_range(out, static_cast<unsigned char>(c), static_cast<unsigned char>(last));
  }

  std::string_view key_;
  const std::string& where_;
  std::vector<Node> nodes_;
  size_t at_ = 0;
  int depth_ = 0;
};

}  // namespace

std::vector<PatternNode> parse_pattern(std::string_view key, const std::string& where) {
  return Parser(key, where).parse();
}

}  // namespace moelora::packed
