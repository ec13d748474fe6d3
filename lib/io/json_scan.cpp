#include "lib/io/json_scan.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>

#include "lib/io/utf8.h"

namespace moelora {
namespace {

using Kind = JsonToken::Kind;

// Walks the text and tells how far nlohmann has read.
struct TrackingIterator {
  using iterator_category = std::input_iterator_tag;
  using value_type = char;
  using difference_type = std::ptrdiff_t;
  using pointer = const char*;
  using reference = const char&;

  const char* at;
  const char** reached;

  reference operator*() const { return *at; }
  TrackingIterator& operator++() {
    *reached = ++at;
    return *this;
  }
  bool operator==(const TrackingIterator& other) const { return at == other.at; }
  bool operator!=(const TrackingIterator& other) const { return at != other.at; }
};

bool is_space(char c) { return c == ' ' || c == '\t' || c == '\n' || c == '\r'; }
bool is_between_tokens(char c) { return is_space(c) || c == ',' || c == ':'; }
// nlohmann's SAX events, given their place in the text, as tokens.
class Sax {
 public:
  Sax(std::string_view text, int max_depth, JsonHandler& handler)
      : text_(text), max_depth_(max_depth), handler_(handler), reached_(text.data()) {}

  void run() {
    if (next_token() == text_.size()) throw handler_.error_at(0, "is empty, expected a JSON value");
    const char* const end = text_.data() + text_.size();
    nlohmann::json::sax_parse(TrackingIterator{text_.data(), &reached_},
                              TrackingIterator{end, &reached_}, this);
    const auto rest =
        std::find_if_not(text_.begin() + static_cast<std::ptrdiff_t>(done_), text_.end(), is_space);
    if (rest != text_.end()) fail_trailing(static_cast<uint64_t>(rest - text_.begin()));
  }

  bool null() { return emit(Kind::null); }
  bool boolean(bool value) {
    token_.boolean = value;
    return emit(Kind::boolean);
  }
  bool number_integer(int64_t) { return number(); }
  bool number_unsigned(uint64_t) { return number(); }
  bool number_float(double, const std::string&) { return number(); }
  bool string(std::string& value) {
    token_.text.swap(value);
    return emit(Kind::string);
  }
  bool key(std::string& value) {
    token_.text.swap(value);
    return emit(Kind::key);
  }
  bool binary(nlohmann::json::binary_t&) { return false; }
  bool start_object(size_t) { return begin(Kind::begin_object); }
  bool start_array(size_t) { return begin(Kind::begin_array); }
  bool end_object() { return end(Kind::end_object); }
  bool end_array() { return end(Kind::end_array); }

  bool parse_error(size_t, const std::string&, const nlohmann::json::exception& ex) {
    explain(ex);
    return false;
  }

 private:
  uint64_t next_token() const {
    const auto from = text_.begin() + static_cast<std::ptrdiff_t>(done_);
    return static_cast<uint64_t>(std::find_if_not(from, text_.end(), is_between_tokens) -
                                 text_.begin());
  }

  uint64_t reached() const { return static_cast<uint64_t>(reached_ - text_.data()); }

  bool emit(Kind kind) {
    token_.kind = kind;
    token_.offset = next_token();
    done_ = reached();
    handler_.on(token_);
    return true;
  }

  std::string_view number_at(uint64_t offset) const {
    const std::string_view rest = text_.substr(offset);
    return rest.substr(0, rest.find_first_not_of("+-.0123456789Ee"));
  }

  // The lexer has read one byte past a number: its text ends where its characters do.
  bool number() {
    token_.kind = Kind::number;
    token_.offset = next_token();
    token_.text = number_at(token_.offset);
    done_ = token_.offset + token_.text.size();
    handler_.on(token_);
    return true;
  }

  bool begin(Kind kind) {
    if (++depth_ > max_depth_)
      throw handler_.error_at(next_token(),
                              fmt::format("is nested deeper than {} levels", max_depth_));
    return emit(kind);
  }

  bool end(Kind kind) {
    --depth_;
    return emit(kind);
  }

  bool stands_at(uint64_t offset, std::string_view word) const {
    return text_.substr(offset).starts_with(word);
  }

  [[noreturn]] void fail_trailing(uint64_t at) const {
    throw handler_.error_at(at, fmt::format("unexpected text after the JSON value: '{}'",
                                            printable(text_.substr(at), 20)));
  }

  [[noreturn]] void explain(const nlohmann::json::exception& ex) const {
    const uint64_t at = next_token();
    for (const std::string_view word : {"NaN", "Infinity", "-Infinity"})
      if (stands_at(at, word))
        throw handler_.error_at(at, fmt::format("{} is not JSON", word),
                                "Python's json.dump writes it; put a number or null in its place.");
    if (ex.id == 406)
      throw handler_.error_at(
          at, fmt::format("the number {} is out of range", printable(text_.substr(at, 30), 24)));
    explain_syntax(at, ex.what());
  }

  // nlohmann's text without its prefix, and without the quoted input it may end in.
  [[noreturn]] void explain_syntax(uint64_t at, std::string what) const {
    const bool by_token = what.find(" - unexpected ") != std::string::npos;
    if (by_token && what.find("expected end of input") != std::string::npos) fail_trailing(at);
    if (const size_t prefix = what.find("syntax error"); prefix != std::string::npos)
      what.erase(0, prefix);
    if (const size_t quoted = what.find("; last read: '"); quoted != std::string::npos) {
      const size_t expected = what.rfind("; expected ");
      const bool tail = expected != std::string::npos && expected > quoted;
      what.erase(quoted, tail ? expected - quoted : std::string::npos);
    }
    if (by_token && at < text_.size() && text_[at] == '\0') what = "a NUL byte between values";
    const uint64_t last_read = reached() == 0 ? 0 : reached() - 1;
    throw handler_.error_at(by_token || at > last_read ? at : last_read, printable(what, 300));
  }

  std::string_view text_;
  int max_depth_, depth_ = 0;
  JsonHandler& handler_;
  const char* reached_;
  uint64_t done_ = 0;  // end of the last token given to the handler
  JsonToken token_;
};

}  // namespace

std::string_view kind_name(JsonToken::Kind kind) {
  switch (kind) {
    case Kind::null:
      return "null";
    case Kind::boolean:
      return "a boolean";
    case Kind::number:
      return "a number";
    case Kind::string:
      return "a string";
    case Kind::key:
      return "a key";
    case Kind::begin_array:
    case Kind::end_array:
      return "an array";
    case Kind::begin_object:
    case Kind::end_object:
      return "an object";
  }
  return "nothing";
}

void scan_json(std::string_view text, int max_depth, JsonHandler& handler) {
  if (text.starts_with("\xEF\xBB\xBF"))
    throw handler.error_at(0, "begins with a byte order mark",
                           "Save the file as UTF-8 without BOM.");
  if (const auto bad = find_invalid_utf8(text))
    throw handler.error_at(*bad, fmt::format("byte 0x{:02x} is not valid UTF-8",
                                             static_cast<unsigned char>(text[*bad])));
  Sax(text, max_depth, handler).run();
}

}  // namespace moelora
