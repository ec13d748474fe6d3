#include "lib/io/safetensors_header.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <optional>
#include <tuple>

#include "lib/base/checked.h"
#include "lib/base/error.h"
#include "lib/base/numbers.h"
#include "lib/base/utf8.h"
#include "lib/io/json_scan.h"

namespace moelora {
namespace {

// ---- the grammar ----

// A hostile header of 100 MB may not take much more memory than that.
constexpr size_t kMaxTensors = 1'000'000, kMaxMetadata = 100'000;
constexpr int kMaxDepth = 128;  // the reference's; a sound header needs 3

[[noreturn]] void refuse_tensor(const std::string& where, const std::string& name,
                                const std::string& what) {
  throw Error(in_file(where, printable(name)), what);
}

// Turns the tokens of a header into entries: the grammar of one, nothing about sizes.
class HeaderReader final : public JsonHandler {
 public:
  HeaderReader(const std::string& where, SafetensorsHeader& header)
      : where_(where), header_(header) {}

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
      case State::metadata:
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
    // mlx writes null in every file, and the reference reader takes it for no metadata.
    if (is_metadata && token.kind == Kind::null && !header_.has_metadata) {
      header_.has_metadata = true;
      return;
    }
    if (token.kind != Kind::begin_object)
      refuse("is {}, expected an object{}", kind_name(token.kind),
             is_metadata ? " of strings" : " with dtype, shape and data_offsets");
    is_metadata ? begin_metadata() : begin_entry();
  }

  void begin_metadata() {
    if (header_.has_metadata) refuse("stands twice in the header");
    header_.has_metadata = true;
    state_ = State::metadata;
  }

  void begin_entry() {
    if (header_.tensors.size() == kMaxTensors)
      refuse("is tensor number {}, no more than {} are read", kMaxTensors + 1, kMaxTensors);
    header_.tensors.push_back({name_, {}, {}, 0, 0});
    seen_ = {};
    state_ = State::entry;
  }

  void on_entry(const JsonToken& token) {
    if (token.kind == Kind::end_object) return end_entry();
    const auto field = std::find(kFields.begin(), kFields.end(), token.text);
    if (field == kFields.end())
      refuse("has the unknown field {}, expected dtype, shape and data_offsets",
             quoted(token.text));
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
    if (!dtype) refuse("has the unknown dtype {}", quoted(token.text));
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
      refuse("has {} as the value of {}, expected a string", kind_name(token.kind), quoted(key_));
    } else if (header_.metadata.size() == kMaxMetadata) {
      refuse("has more than {} keys", kMaxMetadata);
    } else if (!header_.metadata.try_emplace(key_, std::move(token.text)).second) {
      refuse("has the key {} twice", quoted(key_));
    }
  }

  template <class... T>
  [[noreturn]] void refuse(fmt::format_string<T...> what, T&&... values) const {
    refuse_tensor(where_, name_, fmt::format(what, std::forward<T>(values)...));
  }

  const std::string& where_;
  SafetensorsHeader& header_;
  State state_ = State::root;
  std::string name_, key_;
  std::optional<std::vector<uint64_t>> numbers_;
  std::array<bool, kFields.size()> seen_ = {};  // of kFields, in this entry
};

// ---- the layout ----

// The rules about where tensors lie, one function per rule; the tensors are in file order. Size
// arithmetic never wraps.
class LayoutCheck {
 public:
  LayoutCheck(const std::string& where, const SafetensorsHeader& header, uint64_t file_size)
      : where_(where), header_(header), file_size_(file_size) {}

  void run() const {
    check_names();
    const TensorEntry* previous = nullptr;
    for (const TensorEntry& entry : header_.tensors) {
      check_contiguous(entry, previous);
      check_size(entry);
      previous = &entry;
    }
    check_end();
  }

 private:
  void check_names() const {
    std::vector<const TensorEntry*> sorted;
    sorted.reserve(header_.tensors.size());
    for (const TensorEntry& entry : header_.tensors) sorted.push_back(&entry);
    std::sort(sorted.begin(), sorted.end(), [](auto* a, auto* b) { return a->name < b->name; });
    const auto twin = std::adjacent_find(sorted.begin(), sorted.end(),
                                         [](auto* a, auto* b) { return a->name == b->name; });
    if (twin != sorted.end()) refuse(**twin, "stands twice in the header");
  }

  void check_contiguous(const TensorEntry& entry, const TensorEntry* previous) const {
    if (entry.end < entry.begin)
      refuse(entry, "has data_offsets [{}, {}], which run backwards", entry.begin, entry.end);
    const uint64_t expected = previous == nullptr ? 0 : previous->end;
    if (entry.begin == expected) return;
    const std::string neighbour = previous == nullptr
                                      ? "the data section begins"
                                      : fmt::format("tensor {} ends", quoted(previous->name));
    refuse(entry, "begins at offset {}, {} at {}: {}", entry.begin, neighbour, expected,
           entry.begin > expected ? "the bytes between belong to no tensor" : "the two overlap");
  }

  void check_size(const TensorEntry& entry) const {
    std::optional<uint64_t> count = 1;
    for (const uint64_t dim : entry.shape)
      if (count) count = checked_mul(*count, dim);
    const auto bits = static_cast<uint64_t>(dtype_bits(entry.dtype));
    const auto total = count ? checked_mul(*count, bits) : std::nullopt;
    if (!total) refuse_shape(entry, ": its size does not fit 64 bits");
    if (*total % 8 != 0)
      refuse_shape(entry, fmt::format(": {} bits are not a whole number of bytes", *total));
    if (*total / 8 != entry.end - entry.begin)
      refuse_shape(entry, fmt::format(", which takes {} bytes, but data_offsets [{}, {}] hold {}",
                                      *total / 8, entry.begin, entry.end, entry.end - entry.begin));
  }

  void check_end() const {
    const uint64_t end = header_.tensors.empty() ? 0 : header_.tensors.back().end;
    const auto expected = checked_add(header_.data_begin, end);
    if (expected && *expected == file_size_) return;
    const bool truncated = !expected || *expected > file_size_;
    throw Error(in_file(where_),
                fmt::format("has {} bytes of data, its header describes {}: {}",
                            file_size_ - header_.data_begin, end,
                            truncated ? "it was cut short" : "the rest belongs to no tensor"),
                truncated ? "Download or copy the file again." : "");
  }

  template <class... T>
  [[noreturn]] void refuse(const TensorEntry& entry, fmt::format_string<T...> what,
                           T&&... values) const {
    refuse_tensor(where_, entry.name, fmt::format(what, std::forward<T>(values)...));
  }
  [[noreturn]] void refuse_shape(const TensorEntry& entry, const std::string& what) const {
    refuse(entry, "has shape [{}] of {}{}", fmt::join(entry.shape, ", "), dtype_name(entry.dtype),
           what);
  }

  const std::string& where_;
  const SafetensorsHeader& header_;
  uint64_t file_size_;
};

}  // namespace

SafetensorsHeader parse_safetensors_header(std::string_view header, uint64_t file_size,
                                           const std::string& where) {
  SafetensorsHeader out;
  out.data_begin = 8 + header.size();
  HeaderReader reader(where, out);
  scan_json(header, kMaxDepth, reader);
  std::sort(out.tensors.begin(), out.tensors.end(), [](const TensorEntry& a, const TensorEntry& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  });
  LayoutCheck(where, out, file_size).run();
  return out;
}

}  // namespace moelora
