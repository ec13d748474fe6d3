#include "lib/io/json.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>

#include "lib/base/error.h"
#include "lib/base/utf8.h"
#include "lib/io/file.h"
#include "lib/io/json_scan.h"
#include "lib/io/text_position.h"

namespace moelora {
namespace {

// Copies, comparison and dump() recurse, so no limit may ask for more.
constexpr int kDeepest = 256;

// Index of a member whose key stands before it too; -1 when there is none.
int64_t find_duplicate(const Json::Members& members) {
  std::vector<size_t> order(members.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  const auto key = [&](size_t i) -> const std::string& { return members[i].first; };
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    const int by_key = key(a).compare(key(b));
    return by_key != 0 ? by_key < 0 : a < b;
  });
  const auto twin = std::adjacent_find(order.begin(), order.end(),
                                       [&](size_t a, size_t b) { return key(a) == key(b); });
  return twin == order.end() ? -1 : static_cast<int64_t>(*std::next(twin));
}

}  // namespace

// Builds the value from its tokens. The stack holds the open containers.
class JsonBuilder final : public JsonHandler {
 public:
  JsonBuilder(std::string_view text, const std::string& where)
      : text_(text), where_(where), position_(text) {}

  void on(JsonToken& token) override {
    using Kind = JsonToken::Kind;
    position_.advance(token.offset);
    switch (token.kind) {
      case Kind::null:
        return add(Json());
      case Kind::boolean:
        return add(Json(token.boolean));
      case Kind::number:
        return add(number(token));
      case Kind::string:
        return add(Json(std::move(token.text)));
      case Kind::key:
        return open_.back().keys(std::move(token.text), token.offset);
      case Kind::begin_array:
        return open(Json::array());
      case Kind::begin_object:
        return open(Json::object());
      case Kind::end_array:
      case Kind::end_object:
        return close();
    }
  }

  Error error_at(uint64_t offset, std::string what, std::string hint) const override {
    return {place_in(text_, offset, where_), std::move(what), std::move(hint)};
  }

  Json take() { return std::move(root_); }

 private:
  struct Open {
    Json value;
    std::vector<uint64_t> key_offsets;

    void keys(std::string key, uint64_t offset) {
      value.members_.emplace_back(std::move(key), Json());
      key_offsets.push_back(offset);
    }
  };

  static Json number(const JsonToken& token) {
    const char* const end = token.text.data() + token.text.size();
    Json out;
    const auto parsed = std::from_chars(token.text.data(), end, out.integer_);
    if (parsed.ec == std::errc() && parsed.ptr == end) {
      out.kind_ = Json::Kind::integer;
    } else {
      out.kind_ = Json::Kind::real;
      std::from_chars(token.text.data(), end, out.real_);
    }
    out.text_ = token.text;
    return out;
  }

  void stamp(Json& value) const {
    value.line_ = position_.line();
    value.column_ = position_.column();
  }

  void add(Json value) {
    if (value.line_ == 0) stamp(value);
    if (open_.empty()) {
      root_ = std::move(value);
    } else if (Json& parent = open_.back().value; parent.is(Json::Kind::array)) {
      parent.items_.push_back(std::move(value));
    } else {
      parent.members_.back().second = std::move(value);
    }
  }

  void open(Json value) {
    stamp(value);
    open_.push_back({std::move(value), {}});
  }

  void close() {
    Open done = std::move(open_.back());
    open_.pop_back();
    if (const int64_t i = find_duplicate(done.value.members_); i >= 0)
      throw duplicate(done, static_cast<size_t>(i));
    add(std::move(done.value));
  }

  Error duplicate(const Open& object, size_t i) const {
    return error_at(object.key_offsets[i],
                    fmt::format("the key {} stands twice in this object",
                                quoted(object.value.members_[i].first)),
                    "Readers disagree on which one counts; delete one of them.");
  }

  std::string_view text_;
  const std::string& where_;
  TextPosition position_;
  std::vector<Open> open_;
  Json root_;
};

Json parse_json(std::string_view text, const std::string& where, const JsonLimits& limits) {
  if (text.size() > limits.bytes)
    throw Error(in_file(where), fmt::format("has {} bytes of JSON, more than the {} that are read",
                                            text.size(), limits.bytes));
  JsonBuilder builder(text, where);
  scan_json(text, std::min(limits.depth, kDeepest), builder);
  return builder.take();
}

Json read_json_file(const std::string& path, const JsonLimits& limits) {
  const FilePtr file = File::open(path);
  if (file->size() > limits.bytes)
    throw Error(in_file(path), fmt::format("has {} bytes, more than the {} that are read",
                                           file->size(), limits.bytes));
  std::string text(file->size(), '\0');
  file->read(0, text.size(), reinterpret_cast<std::byte*>(text.data()));
  return parse_json(text, path, limits);
}

}  // namespace moelora
