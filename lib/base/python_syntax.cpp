#include "lib/base/python_syntax.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <optional>
#include <vector>

#include "lib/base/python_characters.h"

namespace moelora {
namespace {

constexpr uint64_t kMostRepeats = 65535;          // PCRE2's own
constexpr uint64_t kEndless = uint64_t{1} << 32;  // Python's MAXREPEAT

// How many characters a part can take: Python wants look-behinds of one width.
struct Width {
  uint64_t least = 0, most = 0;
};

Width operator+(Width a, Width b) {
  return {std::min(a.least + b.least, kEndless), std::min(a.most + b.most, kEndless)};
}
Width either(Width a, Width b) { return {std::min(a.least, b.least), std::max(a.most, b.most)}; }
Width times(Width a, uint64_t least, uint64_t most) {
  return {std::min(a.least * least, kEndless), a.most == 0 ? 0 : std::min(a.most * most, kEndless)};
}

// Reads an expression as sre_parse does and writes it for PCRE2.
class Translator : private RegexReader {
 public:
  using RegexReader::RegexReader;

  PcreText translate() {
    alternatives(true);
    if (!at_end()) invalid("unbalanced parenthesis");
    for (const uint64_t group : conditions_)
      if (group >= groups_.size()) invalid(fmt::format("no group {}", group));
    return {std::move(out_), ascii_only_};
  }

 private:
  struct Group {
    bool open = true;
    Width width;
  };
  enum class Item : uint8_t { none, anchor, repeat, plain };  // what a repeat would apply to

  Width alternatives(bool whole_expression = false) {
    if (++depth_ > kDeepestRegexGroup) unread("nesting of groups this deep");
    Width width = sequence(whole_expression);
    while (take('|')) {
      out_ += '|';
      width = either(width, sequence(false));
    }
    --depth_;
    return width;
  }

  // `flags_may_stand`: nothing came before, so (?i) may.
  Width sequence(bool flags_may_stand) {
    Width width, last;
    Item item = Item::none;
    size_t begin = out_.size();  // of the item, in out_
    while (!at_end() && peek() != '|' && peek() != ')') {
      if (const auto count = repeat_count()) {
        if (item == Item::none || item == Item::anchor) invalid("nothing to repeat");
        if (item == Item::repeat) invalid("multiple repeat");
        write_repeat(begin, count->least, count->most);
        width = width + times(last, count->least, count->most);
        item = Item::repeat;
        last = {};
        continue;
      }
      const size_t before = out_.size();
      const std::optional<Part> part = one(flags_may_stand && item == Item::none);
      if (!part) continue;  // a comment, flags
      if (item == Item::plain) width = width + last;
      begin = before;
      item = part->item;
      last = part->width;
    }
    return item == Item::plain ? width + last : width;
  }

  // Reads * + ? {m,n}; nullopt, and nothing read, at anything else.
  std::optional<Width> repeat_count() {
    if (take('*')) return Width{0, kEndless};
    if (take('+')) return Width{1, kEndless};
    if (take('?')) return Width{0, 1};
    return peek() == '{' && peek(1) != '}' ? braces() : std::nullopt;
  }

  // {m}, {m,}, {,n}, {m,n} and {,}; any other brace is a character.
  std::optional<Width> braces() {
    const size_t before = at_++;
    const uint64_t least = number(0);
    const bool bare = at_ == before + 1, comma = take(',');
    const uint64_t most = comma ? number(kEndless) : least;
    if ((bare && !comma) || !take('}')) {
      at_ = before;
      return std::nullopt;
    }
    if (most < least) invalid("min repeat greater than max repeat");
    if (least > kMostRepeats || (most > kMostRepeats && most < kEndless))
      unread("a repeat of more than 65535");
    return Width{least, most};
  }

  // The digits here; `missing` where there are none.
  uint64_t number(uint64_t missing) {
    if (!is_digit(peek())) return missing;
    uint64_t out = 0;
    while (is_digit(peek())) out = std::min(out * 10 + (text_[at_++] - '0'), kEndless - 1);
    return out;
  }

  // The item stands in a group of its own: what PCRE2 would make of two repeats is never asked.
  void write_repeat(size_t begin, uint64_t least, uint64_t most) {
    out_.insert(begin, "(?:");
    out_ +=
        most >= kEndless ? fmt::format("){{{},}}", least) : fmt::format("){{{},{}}}", least, most);
    if (take('?'))
      out_ += '?';
    else if (take('+'))
      out_ += '+';
  }

  struct Part {
    Item item;
    Width width;
  };

  Part literal(char32_t c) {
    check_case(c);
    out_ += c < 128 && is_word(c) ? std::string(1, static_cast<char>(c)) : code_text(c);
    return {Item::plain, {1, 1}};
  }
  Part anchor(std::string_view text) {
    out_ += text;
    return {Item::anchor, {}};
  }
  Part plain(std::string_view text) {
    out_ += text;
    return {Item::plain, {1, 1}};
  }

  std::optional<Part> one(bool flags_may_stand) {
    const char32_t c = text_[at_++];
    if (c == '.') return plain(".");
    if (c == '^') return anchor("^");
    if (c == '$') return anchor("$");
    if (c == '[') return plain(bracket());
    if (c == '\\') return escape();
    if (c == '(') return group(flags_may_stand);
    return literal(c);
  }

  Part escape() {
    const char32_t c = next("it ends in a backslash");
    if (c == 'A') return anchor("\\A");
    if (c == 'Z') return anchor("\\z");
    if (c == 'b') return ascii_only_ = true, anchor("\\b");
    if (c == 'B') return ascii_only_ = true, anchor("(?!\\A\\z)\\B");  // Python: never on ""
    if (const auto ranges = named_class(c)) return plain("[" + ranges_text(*ranges) + "]");
    if (is_digit(c) && c != '0') return group_or_octal(c);
    return literal(escaped_character(c, false));
  }

  // \1 to \99 refer to a group; three octal digits are a character.
  Part group_or_octal(char32_t c) {
    uint64_t group = c - '0';
    if (is_digit(peek())) {
      if (is_octal(c) && is_octal(peek()) && is_octal(peek(1))) return literal(octal(c, 2));
      group = group * 10 + (text_[at_++] - '0');
    }
    return reference(group);
  }

  Part reference(uint64_t group) {
    if (group >= groups_.size()) invalid(fmt::format("no group {}", group));
    check_usable(group);
    out_ += fmt::format("\\g{{{}}}", group);
    return {Item::plain, groups_[group].width};
  }
  void check_usable(uint64_t group) const {
    if (groups_[group].open) invalid(fmt::format("group {} is referred to inside itself", group));
    if (behind_ && group >= *behind_)
      invalid("a group that the same look-behind defines is referred to in it");
  }

  std::optional<Part> group(bool flags_may_stand) {
    if (!take('?')) return capture("(", "");
    const char32_t c = next("unexpected end of pattern");
    if (c == ':') return enclosed("(?:");
    if (c == '>') return enclosed("(?>");
    if (c == '=' || c == '!') return look(c == '=' ? "(?=" : "(?!");
    if (c == '<') return look_behind();
    if (c == 'P') return named();
    if (c == '(') return condition();
    if (c == '#') return until(')', "missing ), unterminated comment"), std::nullopt;
    --at_;
    return flags(flags_may_stand);
  }

  void close() {
    if (!take(')')) invalid("missing ), unterminated subpattern");
    out_ += ')';
  }

  Part enclosed(std::string_view open) {
    out_ += open;
    const bool outer = ignores_case_;
    const Width width = alternatives();
    ignores_case_ = outer;
    close();
    return {Item::plain, width};
  }

  Part capture(std::string_view open, const std::string& name) {
    const size_t index = groups_.size();
    groups_.emplace_back();
    if (!name.empty() && !names_.emplace(name, index).second)
      invalid(fmt::format("group {} is defined twice", name));
    const Part part = enclosed(open);
    groups_[index] = {false, part.width};
    return part;
  }

  Part look(std::string_view open) {
    enclosed(open);
    return {Item::plain, {}};
  }

  Part look_behind() {
    const char32_t c = next("unexpected end of pattern");
    if (c != '=' && c != '!') invalid("unknown extension ?<");
    const std::optional<size_t> outer = behind_;
    if (!behind_) behind_ = groups_.size();
    const Part part = enclosed(c == '=' ? "(?<=" : "(?<!");
    behind_ = outer;
    if (part.width.least != part.width.most) invalid("look-behind requires fixed-width pattern");
    return {Item::plain, {}};
  }

  std::string name_of(const std::u32string& text) const {
    std::string out;
    for (const char32_t c : text) {
      if (c > 127) unread("a group's name beyond ASCII");
      if (!is_word(c)) invalid("bad character in group name");
      out += static_cast<char>(c);
    }
    if (out.empty() || is_digit(static_cast<unsigned char>(out[0])))
      invalid("bad character in group name");
    return out;
  }
  uint64_t group_named(const std::string& name) const {
    const auto found = names_.find(name);
    if (found == names_.end()) invalid(fmt::format("unknown group name '{}'", name));
    return found->second;
  }

  // (?P<name>...) and (?P=name); PCRE2 gets numbers.
  Part named() {
    if (take('<')) return capture("(", name_of(until('>', "missing >, unterminated name")));
    if (!take('=')) invalid("unknown extension ?P");
    return reference(group_named(name_of(until(')', "missing ), unterminated name"))));
  }

  Part condition() {
    const std::u32string text = until(')', "missing ), unterminated name");
    const bool numbered = !text.empty() && std::all_of(text.begin(), text.end(), is_digit);
    if (numbered && text.size() > 5) invalid("invalid group reference");
    uint64_t group = 0;
    if (numbered)
      for (const char32_t c : text) group = group * 10 + (c - '0');
    else
      group = group_named(name_of(text));
    if (group == 0) invalid("bad group number");
    if (group < groups_.size()) check_condition(group);
    conditions_.push_back(group);
    out_ += fmt::format("(?({})", group);
    Width width = sequence(false);
    if (take('|')) {
      out_ += '|';
      width = either(width, sequence(false));
      if (peek() == '|') invalid("conditional backref with more than two branches");
    } else {
      width.least = 0;
    }
    close();
    return {Item::plain, width};
  }
  void check_condition(uint64_t group) const {
    if (behind_) check_usable(group);
  }

  // (?i) at the very start, (?i:...) anywhere.
  std::optional<Part> flags(bool may_stand) {
    std::string on, off;
    for (char32_t c = next("unexpected end of pattern"); c != ')' && c != ':';
         c = next("missing -, : or )")) {
      if (c == '-' && off.empty()) {
        off = "-";
        continue;
      }
      add_flag(c, off.empty() ? on : off);
    }
    const bool scoped = text_[at_ - 1] == ':';
    check_flags(on, off, scoped);
    if (!scoped && !may_stand) invalid("global flags not at the start of the expression");
    if (!scoped) type_flags_ += on;
    check_type(scoped ? on : type_flags_);
    const bool outer = ignores_case_;
    if (on.find('i') != std::string::npos) ignores_case_ = ascii_only_ = true;
    if (off.find('i') != std::string::npos) ignores_case_ = false;
    std::erase_if(on, [](char flag) { return flag == 'a' || flag == 'u'; });
    const std::string text = "(?" + on + (off == "-" ? "" : off);
    if (!scoped) return out_ += on.empty() ? "" : text + ")", std::nullopt;
    const Part part = enclosed(text + ":");
    ignores_case_ = outer;
    return part;
  }

  void add_flag(char32_t c, std::string& flags) const {
    if (c == 'x') unread("verbose mode, (?x),");
    if (c == 'L') invalid("bad inline flags: cannot use 'L' flag with a str pattern");
    if (c != 'i' && c != 'm' && c != 's' && c != 'a' && c != 'u')
      invalid(is_letter(c) ? "unknown flag" : "unknown extension or missing flag");
    flags += static_cast<char>(c);
  }
  // Between Unicode's classes and ASCII's one may choose; to do both is an error.
  void check_type(const std::string& flags) const {
    if (flags.find('a') != std::string::npos && flags.find('u') != std::string::npos)
      invalid("bad inline flags: flags 'a' and 'u' together");
  }
  void check_flags(const std::string& on, const std::string& off, bool scoped) const {
    const auto has = [](const std::string& flags, char c) {
      return flags.find(c) != std::string::npos;
    };
    if (has(off, 'a') || has(off, 'u')) invalid("bad inline flags: cannot turn off 'a' or 'u'");
    if (off == "-" || (!off.empty() && !scoped)) invalid("missing flag");
    if (on.empty() && off.empty()) invalid("missing flag");
    for (const char c : on)
      if (has(off, c)) invalid("bad inline flags: flag turned on and off");
  }

  std::string out_;
  int depth_ = 0;
  std::vector<Group> groups_{{false, {}}};  // 0 is the whole
  std::string type_flags_;                  // of the whole expression
  std::map<std::string, size_t> names_;
  std::vector<uint64_t> conditions_;
  std::optional<size_t> behind_;  // groups that stood before the outermost open look-behind
};

}  // namespace

PcreText to_pcre(std::string_view expression) { return Translator(expression).translate(); }

}  // namespace moelora
