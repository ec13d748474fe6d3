#include "lib/base/regex/python_syntax.h"

#include <fmt/core.h>

#include <algorithm>
#include <map>
#include <optional>
#include <vector>

#include "lib/base/error.h"
#include "lib/base/utf8.h"

namespace moelora {
namespace {

// ---- characters ----

bool is_digit(char32_t c) { return c >= '0' && c <= '9'; }
bool is_octal(char32_t c) { return c >= '0' && c <= '7'; }
bool is_letter(char32_t c) { return c < 128 && (c | 0x20) >= 'a' && (c | 0x20) <= 'z'; }
bool is_word(char32_t c) { return is_letter(c) || is_digit(c) || c == '_'; }

constexpr char32_t kLastCode = 0x10FFFF, kEndOfText = kLastCode + 1;

// For a class of PCRE2: what str.isdecimal, isalnum or "_", and isspace say of ASCII, and their
// opposites.
const std::map<char32_t, std::string_view> kClasses = {
    {'d', "\\d"},
    {'D', "\\D"},
    {'w', "\\w"},
    {'W', "\\W"},
    {'s', "\\x{9}-\\x{d}\\x{1c}-\\x{20}"},
    {'S', "\\x{0}-\\x{8}\\x{e}-\\x{1b}\\x{21}-\\x{10ffff}"},
};

const std::map<char32_t, char32_t> kControls = {{'a', 7}, {'f', 12}, {'n', 10},   {'r', 13},
                                                {'t', 9}, {'v', 11}, {'\\', '\\'}};

bool is_hex(char32_t c) { return is_digit(c) || (is_letter(c) && (c | 0x20) <= 'f'); }

// As PCRE2 reads it: "\x{2e}".
std::string code_text(char32_t c) { return fmt::format("\\x{{{:x}}}", static_cast<uint32_t>(c)); }

// The characters of a Python regular expression, one after the other: its escapes and classes are
// read as sre_parse reads them and written for PCRE2.
class RegexReader {
 public:
  explicit RegexReader(std::string_view text) : original_(text) {
    const auto decoded = decode_utf8(text);
    if (!decoded) invalid("it is not UTF-8");
    text_ = *decoded;
  }

 protected:
  // Errors at the expression: Python refuses it too; or Python would take it.
  template <class... T>
  [[noreturn]] void invalid(fmt::format_string<T...> why, T&&... values) const {
    throw Error(
        original_,
        "is not a valid regular expression: " + fmt::format(why, std::forward<T>(values)...),
        "write it as Python's re reads it");
  }
  [[noreturn]] void unread(std::string_view what) const {
    throw Error(original_, fmt::format("{} is not evaluated here", what),
                "write the expression without it");
  }

  bool at_end() const { return at_ >= text_.size(); }
  // No character's value at the end.
  char32_t peek(size_t ahead = 0) const {
    return at_ + ahead < text_.size() ? text_[at_ + ahead] : kEndOfText;
  }
  bool take(char32_t c) {
    if (peek() != c) return false;
    ++at_;
    return true;
  }
  char32_t next(std::string_view missing) {
    if (at_end()) invalid("{}", missing);
    return text_[at_++];
  }
  // The text up to `end`, which is read over.
  std::u32string until(char32_t end, std::string_view missing) {
    const size_t found = text_.find(end, at_);
    if (found == std::u32string::npos) invalid("{}", missing);
    const std::u32string out = text_.substr(at_, found - at_);
    at_ = found + 1;
    return out;
  }

  // \d \w \s and their opposites; nullopt for any other letter.
  std::optional<std::string_view> named_class(char32_t letter) {
    const auto found = kClasses.find(letter);
    if (found == kClasses.end()) return std::nullopt;
    ascii_only_ = true;
    return found->second;
  }

  // The single character that an escape stands for; `c`, after the backslash, is read already.
  char32_t escaped_character(char32_t c, bool in_class) {
    if (const auto found = kControls.find(c); found != kControls.end()) return found->second;
    if (c == 'b' && in_class) return 8;
    if (c == 'x') return hexadecimal(2);
    if (c == 'u') return hexadecimal(4);
    if (c == 'U') return hexadecimal(8);
    if (c == 'N' && peek() == '{') unread("\\N{NAME}");
    if (c == '0' || (in_class && is_octal(c))) return octal(c, 2);
    if (is_letter(c) || is_digit(c)) invalid("bad escape \\{}", static_cast<char>(c));
    return c;
  }

  char32_t octal(char32_t first, int more) {
    char32_t out = first - '0';
    for (; more > 0 && is_octal(peek()); --more) out = out * 8 + (text_[at_++] - '0');
    if (out > 0377) invalid("an octal escape beyond \\377");
    return out;
  }

  // The class whose "[" is read.
  std::string bracket() {
    std::string out = take('^') ? "[^" : "[";
    for (bool first = true; first || !take(']'); first = false) {
      const ClassItem low = class_item();
      out += low.text;
      if (peek() != '-') continue;
      ++at_;
      if (peek() == ']') {
        out += code_text('-');
        continue;
      }
      const ClassItem high = class_item();
      if (!low.single || !high.single || *high.single < *low.single) invalid("bad character range");
      out += '-' + high.text;
    }
    return out + "]";
  }

  // Refuses a letter whose other case Unicode alone knows.
  void check_case(char32_t c) const {
    if (ignores_case_ && c > 127) unread("ignoring the case of letters beyond ASCII");
  }

  const std::string original_;
  std::u32string text_;
  size_t at_ = 0;
  bool ignores_case_ = false;
  bool ascii_only_ = false;  // Unicode would make a difference on paths beyond ASCII

 private:
  char32_t hexadecimal(int digits) {
    char32_t out = 0;
    for (int i = 0; i < digits; ++i) {
      const char32_t c = next("an incomplete escape");
      if (!is_hex(c)) invalid("an incomplete escape");
      out = out * 16 + (is_digit(c) ? c - '0' : (c | 0x20) - 'a' + 10);
    }
    if (out > kLastCode) invalid("an escape beyond the last character");
    if (out >= 0xD800 && out < 0xE000) unread("a surrogate");
    return out;
  }

  struct ClassItem {
    std::string text;
    std::optional<char32_t> single;  // not \d and its like
  };
  ClassItem class_item() {
    char32_t c = next("unterminated character set");
    if (c == '\\') {
      c = next("it ends in a backslash");
      if (const auto named = named_class(c)) return {std::string(*named), std::nullopt};
      c = escaped_character(c, true);
    }
    check_case(c);
    return {code_text(c), c};
  }
};

// ---- syntax ----

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
      if (group >= groups_.size()) invalid("no group {}", group);
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
    if (const auto named = named_class(c)) return plain(fmt::format("[{}]", *named));
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
    if (group >= groups_.size()) invalid("no group {}", group);
    check_usable(group);
    out_ += fmt::format("\\g{{{}}}", group);
    return {Item::plain, groups_[group].width};
  }
  void check_usable(uint64_t group) const {
    if (groups_[group].open) invalid("group {} is referred to inside itself", group);
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
      invalid("group {} is defined twice", name);
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
    if (found == names_.end()) invalid("unknown group name '{}'", name);
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
    if (group < groups_.size() && behind_) check_usable(group);
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
    // Between Unicode's classes and ASCII's one may choose; to do both is an error.
    if (const std::string& type = scoped ? on : type_flags_; has(type, 'a') && has(type, 'u'))
      invalid("bad inline flags: flags 'a' and 'u' together");
    const bool outer = ignores_case_;
    if (has(on, 'i')) ignores_case_ = ascii_only_ = true;
    if (has(off, 'i')) ignores_case_ = false;
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
      invalid("{}", is_letter(c) ? "unknown flag" : "unknown extension or missing flag");
    flags += static_cast<char>(c);
  }
  static bool has(const std::string& flags, char c) { return flags.find(c) != std::string::npos; }
  void check_flags(const std::string& on, const std::string& off, bool scoped) const {
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
