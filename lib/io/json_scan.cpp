#include "lib/io/json_scan.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>
#include <nlohmann/json.hpp>

#include "lib/base/utf8.h"

namespace moelora {
namespace {

using Kind = JsonToken::Kind;

constexpr int kOutOfRange = 406;  // nlohmann's id for a number that is no finite double

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
    if (rest != text_.end()) throw trailing(static_cast<uint64_t>(rest - text_.begin()));
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
    throw explained(ex);
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

  // The lexer ends a number by reading one byte more, or the end of the text.
  bool number() {
    token_.kind = Kind::number;
    token_.offset = next_token();
    token_.text = reached() == text_.size()
                      ? number_at(token_.offset)
                      : text_.substr(token_.offset, reached() - 1 - token_.offset);
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

  Error trailing(uint64_t at) const {
    return handler_.error_at(
        at, fmt::format("unexpected text after the JSON value: {}", quoted(text_.substr(at), 20)));
  }

  Error explained(const nlohmann::json::exception& ex) const {
    const uint64_t at = next_token();
    for (const std::string_view word : {"NaN", "Infinity", "-Infinity"})
      if (text_.substr(at).starts_with(word))
        return handler_.error_at(
            at, fmt::format("{} is not JSON", word),
            "Python's json.dump writes it; put a number or null in its place.");
    if (ex.id == kOutOfRange)
      return handler_.error_at(
          at, fmt::format("the number {} is out of range", printable(number_at(at), 24)));
    const std::string fault = core_of(ex.what());
    const uint64_t place = place_of(fault);
    if (fault.ends_with("expected end of input")) return trailing(place);
    if (place < text_.size() && text_[place] == '\0')
      return handler_.error_at(place, "a NUL byte between values");
    return handler_.error_at(place, fault);
  }

  // "[json.exception.parse_error.101] parse error at line 1, column 5: syntax error while parsing
  // value - FAULT; last read: 'INPUT'; expected TOKEN", without what surrounds FAULT and TOKEN.
  static std::string core_of(std::string what) {
    if (const size_t dash = what.find(" - "); dash != std::string::npos) what.erase(0, dash + 3);
    what.erase(std::min(what.find("; last read: '"), what.size()));
    if (const size_t expected = what.find("; expected"); expected != std::string::npos)
      what[expected] = ',';
    return what;
  }

  // A wrong byte is the last one read; a token that does not belong or never ends is named by its
  // first.
  uint64_t place_of(std::string_view fault) const {
    const bool within_string = fault.starts_with("invalid string") && reached() < text_.size();
    return within_string || fault.starts_with("unexpected '") ? reached() - 1 : next_token();
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
