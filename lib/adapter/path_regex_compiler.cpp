#include <fmt/format.h>

#include "lib/adapter/path_regex.h"
#include "lib/base/error.h"

namespace moelora {
namespace {

using Bytes = std::bitset<256>;

constexpr size_t kMostStates = 5000;
constexpr int kDeepest = 100;
constexpr int kMostRepeats = 1000;

size_t at(char c) { return static_cast<unsigned char>(c); }

Bytes range(char first, char last) {
  Bytes out;
  for (size_t c = at(first); c <= at(last); ++c) out.set(c);
  return out;
}

// \d, \w and \s; empty for any other letter.
Bytes named_class(char letter) {
  if (letter == 'd') return range('0', '9');
  if (letter == 'w') return (range('0', '9') | range('a', 'z') | range('A', 'Z')).set(at('_'));
  Bytes out;
  if (letter == 's')
    for (const char c : std::string_view(" \t\n\r\f\v")) out.set(at(c));
  return out;
}

bool is_letter_or_digit(char c) { return named_class('w').test(at(c)) && c != '_'; }

}  // namespace

// Recursive descent into instructions; a piece of code is moved by copying it, so that {m,n} can
// repeat it.
class PathRegexCompiler {
 public:
  PathRegexCompiler(std::string_view text, PathRegex& out) : text_(text), out_(out) {}

  void compile() {
    alternatives(0);
    if (!rest_.empty()) refuse("an unbalanced )");
    emit({PathRegex::Kind::match});
  }

 private:
  using Kind = PathRegex::Kind;
  using State = PathRegex::State;

  [[noreturn]] void refuse(std::string_view what) const {
    throw Error(std::string(text_),
                fmt::format("this pattern key has {}, which is not read here", what),
                "write it with the module path's own characters, or with . * + ? ( ) [ ] | only");
  }

  uint32_t emit(State state) {
    if (out_.states_.size() >= kMostStates) refuse("too many repetitions");
    out_.states_.push_back(state);
    return static_cast<uint32_t>(out_.states_.size() - 1);
  }
  uint32_t here() const { return static_cast<uint32_t>(out_.states_.size()); }

  bool take(char c) {
    if (rest_.empty() || rest_[0] != c) return false;
    rest_.remove_prefix(1);
    return true;
  }
  char next(std::string_view what) {
    if (rest_.empty()) refuse(what);
    const char c = rest_[0];
    rest_.remove_prefix(1);
    return c;
  }

  // a|b|c: split to a or to the rest; each ends with a jump behind all.
  void alternatives(int depth) {
    if (depth > kDeepest) refuse("groups nested too deep");
    std::vector<uint32_t> ends;
    while (true) {
      const uint32_t begin = here();
      sequence(depth);
      if (!take('|')) break;
      insert(begin, {Kind::split, begin + 1, 0});
      ends.push_back(emit({Kind::jump}));
      out_.states_[begin].other = here();
    }
    for (const uint32_t end : ends) out_.states_[end].next = here();
  }

  void sequence(int depth) {
    while (!rest_.empty() && rest_[0] != '|' && rest_[0] != ')') repeated(depth);
  }

  void repeated(int depth) {
    const uint32_t begin = here();
    if (take('^')) return void(emit({Kind::first, here() + 1}));
    if (take('$')) return void(emit({Kind::last, here() + 1}));
    atom(depth);
    if (take('*'))
      star(begin);
    else if (take('+'))
      plus(begin);
    else if (take('?'))
      optional(begin);
    else if (!rest_.empty() && rest_[0] == '{')
      counted(begin);
    else
      return;
    if (take('?')) return;  // a lazy match of the whole path is the same match
    if (!rest_.empty() && (rest_[0] == '*' || rest_[0] == '+')) refuse("a doubled repetition");
  }

  void atom(int depth) {
    const char c = next("an end where something was expected");
    if (c == '(') return group(depth);
    if (c == '[') return bytes(set());
    if (c == '\\') return bytes(escape());
    if (c == '*' || c == '+' || c == '?') refuse("a repetition of nothing");
    Bytes one;
    if (c == '.')
      one = ~Bytes().set(at('\n'));
    else
      one.set(at(c));
    bytes(one);
  }

  void group(int depth) {
    if (take('?') && !take(':')) refuse("(? other than (?:");
    alternatives(depth + 1);
    if (!take(')')) refuse("an unbalanced (");
  }

  void bytes(const Bytes& accepted) {
    out_.sets_.push_back(accepted);
    const auto index = static_cast<uint32_t>(out_.sets_.size() - 1);
    emit({Kind::byte, here() + 1, 0, index});
  }

  Bytes escape() {
    const char c = next("a \\ at its end");
    if (const Bytes named = named_class(c); named.any()) return named;
    if (c >= 'A' && c <= 'Z')
      if (const Bytes named = named_class(static_cast<char>(c - 'A' + 'a')); named.any())
        return ~named;
    if (is_letter_or_digit(c)) refuse(fmt::format("\\{}", c));
    return Bytes().set(at(c));
  }

  // What follows "[".
  Bytes set() {
    const bool negated = take('^');
    Bytes out;
    bool first = true;
    while (first || rest_.empty() || rest_[0] != ']') {
      first = false;
      const char c = next("an unbalanced [");
      if (c == '\\') {
        out |= escape();
      } else if (rest_.size() >= 2 && rest_[0] == '-' && rest_[1] != ']') {
        rest_.remove_prefix(1);
        const char last = next("an unbalanced [");
        if (at(last) < at(c) || last == '\\') refuse("a reversed range");
        out |= range(c, last);
      } else {
        out.set(at(c));
      }
    }
    rest_.remove_prefix(1);
    return negated ? ~out : out;
  }

  // Puts a state in front of the code from `begin` on, whose targets move with it.
  void insert(uint32_t begin, State state) {
    emit({Kind::match});
    for (uint32_t i = here() - 1; i > begin; --i) {
      out_.states_[i] = out_.states_[i - 1];
      shift(out_.states_[i], begin, 1);
    }
    out_.states_[begin] = state;
  }

  static void shift(State& state, uint32_t from, uint32_t by) {
    if (state.next >= from) state.next += by;
    if (state.other >= from && state.kind == Kind::split) state.other += by;
  }

  void optional(uint32_t begin) {
    insert(begin, {Kind::split, begin + 1, 0});
    out_.states_[begin].other = here();
  }
  void star(uint32_t begin) {
    optional(begin);
    emit({Kind::jump, begin});
    out_.states_[begin].other = here();
  }
  void plus(uint32_t begin) { emit({Kind::split, begin, here() + 1}); }

  int number() {
    int value = 0;
    while (!rest_.empty() && rest_[0] >= '0' && rest_[0] <= '9' && value <= kMostRepeats)
      value = value * 10 + (next("") - '0');
    if (value > kMostRepeats) refuse("too many repetitions");
    return value;
  }

  // {m}, {m,}, {,n}, {m,n}; any other brace is a character of its own, as in Python.
  void counted(uint32_t begin) {
    const std::string_view before = rest_;
    take('{');
    const bool low = !rest_.empty() && rest_[0] >= '0' && rest_[0] <= '9';
    const int least = number();
    const bool comma = take(',');
    const bool high = !rest_.empty() && rest_[0] >= '0' && rest_[0] <= '9';
    const int most = number();
    if (!take('}') || (!low && !high)) {
      rest_ = before;
      refuse("a { that counts nothing");
    }
    if (comma && high && most < least) refuse("a reversed range");
    repeat(begin, least, !comma ? least : high ? most : -1);
  }

  // The code from `begin` on, `least` to `most` times; -1 is without end.
  void repeat(uint32_t begin, int least, int most) {
    const uint32_t end = here();
    std::vector<State> once(out_.states_.begin() + begin, out_.states_.begin() + end);
    out_.states_.resize(begin);
    const auto append = [&] {
      const uint32_t start = here();
      for (State state : once) {
        shift(state, begin, start - begin);
        emit(state);
      }
      return start;
    };
    for (int i = 0; i < least; ++i) append();
    if (most < 0) return star(append());
    for (int i = least; i < most; ++i) optional(append());
  }

  std::string_view text_;
  std::string_view rest_ = text_;
  PathRegex& out_;
};

PathRegex::PathRegex(std::string_view text) { PathRegexCompiler(text, *this).compile(); }

}  // namespace moelora
