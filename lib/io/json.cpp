#include "lib/io/json.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <iterator>
#include <nlohmann/json.hpp>

#include "lib/base/error.h"
#include "lib/base/utf8.h"
#include "lib/io/file.h"
#include "lib/io/json_scan.h"

namespace moelora {
namespace {

// Copies, comparison and dump() recurse, so no limit may ask for more.
constexpr int kDeepest = 256;

// Walks the text and knows how far nlohmann has read.
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

// Index of a member whose key stands before it too; -1 when there is none.
int64_t find_duplicate(const Json::Members& members) {
  const auto sorted = by_key(members);
  const auto twin = std::adjacent_find(sorted.begin(), sorted.end(),
                                       [](auto* a, auto* b) { return a->first == b->first; });
  return twin == sorted.end() ? -1 : *std::next(twin) - members.data();
}

}  // namespace

// Builds the value from nlohmann's SAX events, whose names its functions have, and their place in
// the text. The stack holds the open containers. Whether a text is JSON is the library's to say;
// how it fails, in words and with a place, is scan_json's.
class JsonBuilder final : JsonHandler {
 public:
  JsonBuilder(std::string_view text, const std::string& where, int max_depth)
      : text_(text), where_(where), max_depth_(max_depth), reached_(text.data()), position_(text) {}

  Json read() {
    if (text_.starts_with("\xEF\xBB\xBF") || find_invalid_utf8(text_)) refuse();
    const TrackingIterator end{text_.data() + text_.size(), &reached_};
    const bool sound =
        nlohmann::json::sax_parse(TrackingIterator{text_.data(), &reached_}, end, this);
    // It takes a NUL byte for the end.
    if (!sound ||
        !std::all_of(text_.begin() + static_cast<std::ptrdiff_t>(done_), text_.end(), is_space))
      refuse();
    return std::move(root_);
  }

  bool null() { return add_token(Json()); }
  bool boolean(bool value) { return add_token(Json(value)); }
  bool number_integer(int64_t) { return number(); }
  bool number_unsigned(uint64_t) { return number(); }
  bool number_float(double, const std::string&) { return number(); }
  bool string(std::string& value) { return add_token(Json(std::move(value))); }
  bool binary(nlohmann::json::binary_t&) { return false; }
  bool start_object(size_t) { return open(Json::object()); }
  bool start_array(size_t) { return open(Json::array()); }
  bool end_object() { return close(); }
  bool end_array() { return close(); }
  bool parse_error(size_t, const std::string&, const nlohmann::json::exception&) { return false; }

  bool key(std::string& value) {
    members_of(open_.back().value).emplace_back(std::move(value), Json());
    open_.back().key_offsets.push_back(begin_token());
    return true;
  }

 private:
  struct Open {
    Json value;
    std::vector<uint64_t> key_offsets;
  };

  // ---- places ----

  // The offset of the token that was just read.
  uint64_t begin_token() {
    const auto from = text_.begin() + static_cast<std::ptrdiff_t>(done_);
    const auto begin = std::find_if_not(from, text_.end(), is_between_tokens) - text_.begin();
    done_ = static_cast<uint64_t>(reached_ - text_.data());
    position_.advance(static_cast<uint64_t>(begin));
    return static_cast<uint64_t>(begin);
  }

  void stamp(Json& value) const {
    value.line_ = position_.line();
    value.column_ = position_.column();
  }

  // ---- values ----

  static Json::Members& members_of(Json& object) { return std::get<Json::Members>(object.value_); }

  bool add_token(Json value) {
    begin_token();
    stamp(value);
    add(std::move(value));
    return true;
  }

  // The library ends a number by reading one byte more, or the end of the text.
  bool number() {
    const std::string_view rest = text_.substr(begin_token());
    const std::string_view text = rest.substr(0, rest.find_first_not_of("+-.0123456789Ee"));
    done_ = static_cast<uint64_t>(text.data() + text.size() - text_.data());
    const char* const end = text.data() + text.size();
    Json out;
    int64_t integer = 0;
    double real = 0;
    const auto parsed = std::from_chars(text.data(), end, integer);
    if (parsed.ec == std::errc() && parsed.ptr == end) {
      out.value_ = Json::Integer{integer, nullptr};
    } else {
      std::from_chars(text.data(), end, real);
      out.value_ = Json::Real{real, nullptr};
    }
    if (out.number_text() != text) {
      const auto written = std::make_shared<const std::string>(text);
      if (out.is(Json::Kind::integer))
        std::get<Json::Integer>(out.value_).written = written;
      else
        std::get<Json::Real>(out.value_).written = written;
    }
    stamp(out);
    add(std::move(out));
    return true;
  }

  void add(Json value) {
    if (open_.empty()) {
      root_ = std::move(value);
    } else if (Json& parent = open_.back().value; parent.is(Json::Kind::array)) {
      std::get<std::vector<Json>>(parent.value_).push_back(std::move(value));
    } else {
      members_of(parent).back().second = std::move(value);
    }
  }

  bool open(Json value) {
    if (static_cast<int>(open_.size()) == max_depth_) return false;
    begin_token();
    stamp(value);
    open_.push_back({std::move(value), {}});
    return true;
  }

  bool close() {
    begin_token();
    Open done = std::move(open_.back());
    open_.pop_back();
    if (const int64_t i = find_duplicate(done.value.members()); i >= 0)
      refuse_duplicate(done, static_cast<size_t>(i));
    add(std::move(done.value));
    return true;
  }

  // ---- faults ----

  void on(JsonToken&) override {}
  Error error_at(uint64_t offset, std::string what, std::string hint) const override {
    return {place_in(text_, offset, where_), std::move(what), std::move(hint)};
  }

  // Scans the text again, only for the error.
  [[noreturn]] void refuse() {
    scan_json(text_, max_depth_, *this);
    throw Error(in_file(where_), "is not JSON that can be read");
  }

  [[noreturn]] void refuse_duplicate(const Open& object, size_t i) const {
    throw error_at(object.key_offsets[i],
                   fmt::format("the key {} stands twice in this object",
                               moelora::in_quotes(object.value.members()[i].first)),
                   "Readers disagree on which one counts; delete one of them.");
  }

  std::string_view text_;
  const std::string& where_;
  int max_depth_;
  const char* reached_;
  uint64_t done_ = 0;  // end of the last token
  TextPosition position_;
  std::vector<Open> open_;
  Json root_;
};

Json parse_json(std::string_view text, const std::string& where, const JsonLimits& limits) {
  if (text.size() > limits.bytes)
    throw Error(in_file(where),
                fmt::format("has {} bytes of JSON, more than the {} that are read", text.size(),
                            limits.bytes),
                "Check that it is the file that is meant; leave out what no tool reads.");
  return JsonBuilder(text, where, std::min(limits.depth, kDeepest)).read();
}

Json read_json_file(const InputPath& path, const JsonLimits& limits) {
  return parse_json(read_text(path, limits.bytes), path.path, limits);
}

}  // namespace moelora
