#include "lib/io/safetensors_layout.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

#include "lib/base/checked.h"
#include "lib/base/error.h"
#include "lib/base/utf8.h"

namespace moelora {
namespace {

std::string shape_text(const std::vector<uint64_t>& shape) {
  return fmt::format("[{}]", fmt::join(shape, ", "));
}

// One function a rule.
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
      refuse(entry,
             fmt::format("has data_offsets [{}, {}], which run backwards", entry.begin, entry.end));
    const uint64_t expected = previous == nullptr ? 0 : previous->end;
    if (entry.begin == expected) return;
    const std::string neighbour = previous == nullptr
                                      ? "the data section begins"
                                      : fmt::format("tensor {} ends", quoted(previous->name));
    refuse(entry, fmt::format("begins at offset {}, {} at {}: {}", entry.begin, neighbour, expected,
                              entry.begin > expected ? "the bytes between belong to no tensor"
                                                     : "the two overlap"));
  }

  void check_size(const TensorEntry& entry) const {
    std::optional<uint64_t> count = 1;
    for (const uint64_t dim : entry.shape)
      if (count) count = checked_mul(*count, dim);
    const auto bits = static_cast<uint64_t>(dtype_bits(entry.dtype));
    const auto total = count ? checked_mul(*count, bits) : std::nullopt;
    if (!total)
      refuse(entry, fmt::format("has shape {} of {}: its size does not fit 64 bits",
                                shape_text(entry.shape), dtype_name(entry.dtype)));
    if (*total % 8 != 0)
      refuse(entry, fmt::format("has shape {} of {}: {} bits are no whole number of bytes",
                                shape_text(entry.shape), dtype_name(entry.dtype), *total));
    if (*total / 8 != entry.end - entry.begin)
      refuse(entry, fmt::format("has shape {} of {}, which takes {} bytes, but data_offsets "
                                "[{}, {}] hold {}",
                                shape_text(entry.shape), dtype_name(entry.dtype), *total / 8,
                                entry.begin, entry.end, entry.end - entry.begin));
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

  [[noreturn]] void refuse(const TensorEntry& entry, const std::string& what) const {
    throw Error(in_file(where_, printable(entry.name)), what);
  }

  const std::string& where_;
  const SafetensorsHeader& header_;
  uint64_t file_size_;
};

}  // namespace

void check_safetensors_layout(const SafetensorsHeader& header, uint64_t file_size,
                              const std::string& where) {
  LayoutCheck(where, header, file_size).run();
}

}  // namespace moelora
