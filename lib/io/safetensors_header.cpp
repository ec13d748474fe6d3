#include "lib/io/safetensors_header.h"

#include <fmt/format.h>

#include <algorithm>
#include <functional>
#include <optional>
#include <tuple>
#include <utility>

#include "lib/base/checked.h"
#include "lib/base/error.h"
#include "lib/base/utf8.h"
#include "lib/io/header_grammar.h"

namespace moelora {
namespace {

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
    const auto before = [](const TensorEntry& a, const TensorEntry& b) { return a.name < b.name; };
    const auto& tensors = header_.tensors;
    if (std::adjacent_find(tensors.begin(), tensors.end(), std::not_fn(before)) == tensors.end())
      return;  // as writers sort them
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
    refuse(entry, "begins at offset {}, {} at {}: {}", entry.begin, end_of(previous), expected,
           entry.begin > expected ? "the bytes between belong to no tensor" : "the two overlap");
  }

  static std::string end_of(const TensorEntry* previous) {
    if (previous == nullptr) return "the data section begins";
    return fmt::format("tensor {} ends", in_quotes(previous->name));
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
    throw Error(in_file(where_, printable(entry.name)),
                fmt::format(what, std::forward<T>(values)...));
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

SafetensorsHeader parse_safetensors_header(std::string header, uint64_t file_size,
                                           const std::string& where) {
  const size_t length = header.size();
  SafetensorsHeader out = read_header_grammar(std::move(header), where);
  out.data_begin = 8 + length;
  const auto before = [](const TensorEntry& a, const TensorEntry& b) {
    return std::tie(a.begin, a.end, a.name) < std::tie(b.begin, b.end, b.name);
  };
  if (!std::is_sorted(out.tensors.begin(), out.tensors.end(), before))
    std::sort(out.tensors.begin(), out.tensors.end(), before);
  LayoutCheck(where, out, file_size).run();
  return out;
}

}  // namespace moelora
