#include "lib/io/header_grammar.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cstring>
#include <deque>
#include <optional>
#include <utility>

#include "lib/base/error.h"
#include "lib/base/numbers.h"
#include "lib/base/utf8.h"
#include "lib/io/json_scan.h"

namespace moelora {
namespace {

constexpr size_t kMaxMetadata = 100'000;
constexpr int kMaxDepth = 128;  // the reference's; a sound header needs 3

// What a header's names are parts of.
struct HeaderText {
  std::string json;
  std::deque<std::string> unescaped;  // names that are written with escapes
};

// Reads a header as writers write it: strings without escapes, a tensor with its three fields in
// any order, JSON's blanks anywhere. Says nothing of what it does not take: the reader below reads
// that from the begin, and knows what is wrong, where something is. REQUIRES valid UTF-8.
class PlainReader {
 public:
  PlainReader(std::string_view text, SafetensorsHeader& header)
      : at_(text.data()), end_(text.data() + text.size()), header_(header) {}

  bool read() { return take('{') && (take('}') || members()) && (skip_blanks(), at_ == end_); }

 private:
  void skip_blanks() {
    while (at_ != end_ && (*at_ == ' ' || *at_ == '\n' || *at_ == '\r' || *at_ == '\t')) ++at_;
  }
  bool take(char c) {
    if (at_ != end_ && *at_ != c) skip_blanks();
    if (at_ == end_ || *at_ != c) return false;
    ++at_;
    return true;
  }

  bool members() {
    do {
      std::string_view name;
      if (!string(name) || !take(':')) return false;
      if (name == "__metadata__" ? !metadata() : !entry(name)) return false;
    } while (take(','));
    return take('}');
  }

  bool metadata() {
    if (header_.has_metadata || !take('{')) return false;
    header_.has_metadata = true;
    if (take('}')) return true;
    do {
      std::string_view key, value;
      if (!string(key) || !take(':') || !string(value)) return false;
      if (header_.metadata.size() == kMaxMetadata) return false;
      if (!header_.metadata.try_emplace(std::string(key), value).second) return false;
    } while (take(','));
    return take('}');
  }

  bool entry(std::string_view name) {
    if (header_.tensors.size() == kMaxHeaderTensors || !take('{')) return false;
    TensorEntry& out = header_.tensors.emplace_back();
    out.name = name;
    bool has_dtype = false, has_shape = false, has_offsets = false;
    do {
      std::string_view field;
      if (!string(field) || !take(':')) return false;
      if (field == "dtype" ? std::exchange(has_dtype, true) || !dtype(out.dtype)
          : field == "shape"
              ? std::exchange(has_shape, true) || !numbers(kMaxTensorRank, out.shape)
              : field != "data_offsets" || std::exchange(has_offsets, true) || !offsets(out))
        return false;
    } while (take(','));
    return has_dtype && has_shape && has_offsets && take('}');
  }

  // Neighbours mostly have the same.
  bool dtype(DType& out) {
    std::string_view text;
    if (!string(text)) return false;
    if (!last_ || text != last_text_) last_ = dtype_from_name(text);
    last_text_ = text;
    out = last_.value_or(out);
    return last_.has_value();
  }

  bool offsets(TensorEntry& out) {
    return take('[') && number(out.begin) && take(',') && number(out.end) && take(']');
  }

  bool numbers(size_t most, std::vector<uint64_t>& out) {
    if (!take('[')) return false;
    if (take(']')) return true;
    std::array<uint64_t, kMaxTensorRank> found{};
    size_t count = 0;
    do
      if (count == most || !number(found[count++])) return false;
    while (take(','));
    out.assign(found.begin(), found.begin() + static_cast<std::ptrdiff_t>(count));
    return take(']');
  }

  bool number(uint64_t& out) {
    skip_blanks();
    const char* const begin = at_;
    const auto [to, fault] = std::from_chars(begin, end_, out);
    at_ = to;
    return fault == std::errc() && (*begin != '0' || to == begin + 1);
  }

  bool string(std::string_view& out) {
    if (!take('"')) return false;
    const char* const begin = at_;
    while (end_ - at_ >= 8 && !has_special(at_)) at_ += 8;
    while (at_ != end_ && *at_ != '"' && *at_ != '\\' && static_cast<unsigned char>(*at_) >= 0x20)
      ++at_;
    out = {begin, static_cast<size_t>(at_ - begin)};
    return at_ != end_ && *at_++ == '"';
  }

  // Whether a quote, a backslash or a control character is among eight: bytes below `n` borrow.
  static bool has_special(const char* at) {
    constexpr uint64_t kOnes = 0x0101010101010101U, kHigh = 0x8080808080808080U;
    uint64_t word = 0;
    std::memcpy(&word, at, sizeof word);
    const auto below = [](uint64_t w, uint64_t n) { return (w - kOnes * n) & ~w & kHigh; };
    return (below(word ^ kOnes * '"', 1) | below(word ^ kOnes * '\\', 1) | below(word, 0x20)) != 0;
  }

  const char* at_;
  const char* const end_;
  SafetensorsHeader& header_;
  std::string_view last_text_;
  std::optional<DType> last_;  // of last_text_
};

// Turns the tokens of a header into entries: the grammar of one, nothing about sizes.
class HeaderReader final : public JsonHandler {
 public:
  HeaderReader(const std::string& where, SafetensorsHeader& header, std::deque<std::string>& names)
      : where_(where), header_(header), names_(names) {}

  void on(JsonToken& token) override {
    switch (state_) {
      case State::root:
        return on_root(token);
      case State::names:
        return on_names(token);
      case State::entry:
        return on_entry(token);
      case State::dtype:
        return on_dtype(token);
      case State::shape:
        return on_list(token, "shape");
      case State::offsets:
        return on_list(token, "data_offsets");
      default:  // State::metadata
        return on_metadata(token);
    }
  }

  Error error_at(uint64_t offset, std::string what, std::string hint) const override {
    return {in_file(where_), fmt::format("header byte {}: {}", offset, what), std::move(hint)};
  }

 private:
  using Kind = JsonToken::Kind;
  enum class State : uint8_t { root, names, entry, dtype, shape, offsets, metadata };
  static constexpr std::array<std::string_view, 3> kFields = {"dtype", "shape", "data_offsets"};
  static constexpr std::array kFieldStates = {State::dtype, State::shape, State::offsets};

  void on_root(const JsonToken& token) {
    if (token.kind != Kind::begin_object)
      throw error_at(token.offset,
                     fmt::format("the header is {}, expected an object", kind_name(token.kind)),
                     {});
    state_ = State::names;
  }

  void on_names(JsonToken& token) {
    if (token.kind == Kind::end_object) return;
    if (token.kind == Kind::key) {
      name_ = std::move(token.text);
      return;
    }
    const bool is_metadata = name_ == "__metadata__";
    if (is_metadata && std::exchange(header_.has_metadata, true))
      refuse("stands twice in the header");
    // mlx writes null in every file, and the reference reader takes it for no metadata.
    if (is_metadata && token.kind == Kind::null) return;
    if (token.kind != Kind::begin_object)
      refuse("is {}, expected an object{}", kind_name(token.kind),
             is_metadata ? " of strings" : " with dtype, shape and data_offsets");
    if (is_metadata)
      state_ = State::metadata;
    else
      begin_entry();
  }

  void begin_entry() {
    if (header_.tensors.size() == kMaxHeaderTensors)
      fail(fmt::format("is tensor number {}, no more than {} are read", kMaxHeaderTensors + 1,
                       kMaxHeaderTensors),
           "Save the tensors in several files, with an index.");
    header_.tensors.push_back({names_.emplace_back(name_), {}, {}, 0, 0});
    seen_ = {};
    state_ = State::entry;
  }

  void on_entry(const JsonToken& token) {
    if (token.kind == Kind::end_object) return end_entry();
    const auto field = std::find(kFields.begin(), kFields.end(), token.text);
    if (field == kFields.end())
      refuse("has the unknown field {}, expected dtype, shape and data_offsets",
             in_quotes(token.text));
    const auto at = static_cast<size_t>(field - kFields.begin());
    if (seen_[at]) refuse("has the field {} twice", *field);
    seen_[at] = true;
    state_ = kFieldStates[at];
    numbers_.reset();
  }

  void end_entry() {
    for (size_t i = 0; i < kFields.size(); ++i)
      if (!seen_[i]) refuse("has no {}", kFields[i]);
    state_ = State::names;
  }

  void on_dtype(const JsonToken& token) {
    if (token.kind != Kind::string)
      refuse("has {} as dtype, expected a string", kind_name(token.kind));
    const auto dtype = dtype_from_name(token.text);
    if (!dtype) refuse("has the unknown dtype {}", in_quotes(token.text));
    header_.tensors.back().dtype = *dtype;
    state_ = State::entry;
  }

  void on_list(const JsonToken& token, std::string_view field) {
    if (!numbers_) {
      if (token.kind != Kind::begin_array)
        refuse("has {} as {}, expected an array", kind_name(token.kind), field);
      numbers_.emplace();
    } else if (token.kind == Kind::end_array) {
      end_list();
    } else {
      numbers_->push_back(unsigned_number(token, field));
      const int most = state_ == State::shape ? kMaxTensorRank : 2;
      if (numbers_->size() > static_cast<size_t>(most))
        refuse("has more than {} numbers in {}", most, field);
    }
  }

  void end_list() {
    TensorEntry& entry = header_.tensors.back();
    if (state_ == State::shape) {
      entry.shape = std::move(*numbers_);
    } else {
      if (numbers_->size() != 2) refuse("has {} of 2 numbers in data_offsets", numbers_->size());
      entry.begin = (*numbers_)[0];
      entry.end = (*numbers_)[1];
    }
    state_ = State::entry;
  }

  uint64_t unsigned_number(const JsonToken& token, std::string_view field) const {
    if (token.kind != Kind::number)
      refuse("has {} in {}, expected integers", kind_name(token.kind), field);
    const auto value = parse_number<uint64_t>(token.text);
    if (!value)
      refuse("has {} in {}, expected integers from 0 to 2^64-1", printable(token.text, 24), field);
    return *value;
  }

  void on_metadata(JsonToken& token) {
    if (token.kind == Kind::end_object) {
      state_ = State::names;
    } else if (token.kind == Kind::key) {
      key_ = std::move(token.text);
    } else if (token.kind != Kind::string) {
      refuse("has {} as the value of {}, expected a string", kind_name(token.kind),
             in_quotes(key_));
    } else if (header_.metadata.size() == kMaxMetadata) {
      fail(fmt::format("has more than {} keys", kMaxMetadata),
           "Save the tensors again with less metadata.");
    } else if (!header_.metadata.try_emplace(key_, std::move(token.text)).second) {
      refuse("has the key {} twice", in_quotes(key_));
    }
  }

  template <class... T>
  [[noreturn]] void refuse(fmt::format_string<T...> what, T&&... values) const {
    fail(fmt::format(what, std::forward<T>(values)...));
  }
  [[noreturn]] void fail(const std::string& what, const char* hint = "") const {
    throw Error(in_file(where_, printable(name_)), what, hint);
  }

  const std::string& where_;
  SafetensorsHeader& header_;
  std::deque<std::string>& names_;  // of its tensors
  State state_ = State::root;
  std::string name_, key_;
  std::optional<std::vector<uint64_t>> numbers_;
  std::array<bool, kFields.size()> seen_ = {};  // of kFields, in this entry
};

}  // namespace

SafetensorsHeader read_header_grammar(std::string json, const std::string& where) {
  const auto text = std::make_shared<HeaderText>();
  text->json = std::move(json);
  SafetensorsHeader out;
  if (find_invalid_utf8(text->json) || !PlainReader(text->json, out).read()) {
    out = {};
    HeaderReader reader(where, out, text->unescaped);
    scan_json(text->json, kMaxDepth, reader);
  }
  out.names = text;
  return out;
}

}  // namespace moelora
