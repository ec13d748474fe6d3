#include "lib/io/json.h"

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <iterator>

#include "lib/base/error.h"
#include "lib/base/utf8.h"
#include "lib/io/file.h"
#include "lib/io/json_scan.h"

namespace moelora {
namespace {

// Copies, comparison and dump() recurse, so no limit may ask for more.
constexpr int kDeepest = 256;

// Index of a member whose key stands before it too; -1 when there is none.
int64_t find_duplicate(const Json::Members& members) {
  const auto sorted = by_key(members);
  const auto twin = std::adjacent_find(sorted.begin(), sorted.end(),
                                       [](auto* a, auto* b) { return a->first == b->first; });
  return twin == sorted.end() ? -1 : *std::next(twin) - members.data();
}

}  // namespace

// Builds the value from the tokens of its text. The stack holds the open containers.
class JsonBuilder final : public JsonHandler {
 public:
  JsonBuilder(std::string_view text, const std::string& where)
      : text_(text), where_(where), position_(text) {}

  void on(JsonToken& token) override {
    position_.advance(token.offset);
    switch (token.kind) {
      case Kind::null:
        return add(Json());
      case Kind::boolean:
        return add(Json(token.boolean));
      case Kind::number:
        return add(number(std::move(token.text)));
      case Kind::string:
        return add(Json(std::move(token.text)));
      case Kind::key:
        open_.back().value.members_.emplace_back(std::move(token.text), Json());
        return open_.back().key_offsets.push_back(token.offset);
      case Kind::begin_array:
        return open_.push_back({placed(Json::array()), {}});
      case Kind::begin_object:
        return open_.push_back({placed(Json::object()), {}});
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
  using Kind = JsonToken::Kind;
  struct Open {
    Json value;
    std::vector<uint64_t> key_offsets;
  };

  Json placed(Json value) const {
    value.line_ = position_.line();
    value.column_ = position_.column();
    return value;
  }

  static Json number(std::string text) {
    Json out;
    const char* const end = text.data() + text.size();
    const auto parsed = std::from_chars(text.data(), end, out.integer_);
    const bool integer = parsed.ec == std::errc() && parsed.ptr == end;
    if (!integer) std::from_chars(text.data(), end, out.real_);
    out.kind_ = integer ? Json::Kind::integer : Json::Kind::real;
    out.text_ = std::move(text);
    return out;
  }

  void add(Json value) { put(placed(std::move(value))); }

  void put(Json value) {
    if (open_.empty()) {
      root_ = std::move(value);
    } else if (Json& parent = open_.back().value; parent.is(Json::Kind::array)) {
      parent.items_.push_back(std::move(value));
    } else {
      parent.members_.back().second = std::move(value);
    }
  }

  void close() {
    Open done = std::move(open_.back());
    open_.pop_back();
    if (const int64_t i = find_duplicate(done.value.members_); i >= 0)
      throw error_at(done.key_offsets[static_cast<size_t>(i)],
                     fmt::format("the key {} stands twice in this object",
                                 quoted(done.value.members_[static_cast<size_t>(i)].first)),
                     "Readers disagree on which one counts; delete one of them.");
    put(std::move(done.value));
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
  return parse_json(read_text(path, limits.bytes), path, limits);
}

}  // namespace moelora
