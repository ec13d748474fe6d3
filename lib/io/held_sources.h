#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "lib/io/source_range.h"

namespace moelora {

// The source bytes of some parts: which ranges to read, and where they lie once read.
class HeldSources {
 public:
  // Ranges no further apart than `gap` bytes become one.
  HeldSources(std::span<const Part* const> parts, uint64_t gap);

  uint64_t bytes() const { return bytes_; }  // of the buffer that read() needs
  void read(std::span<std::byte> buffer);

  // The held address of element `begin` of `source`, when all up to `end` lie in one range with it.
  const std::byte* find(const Source& source, int64_t begin, int64_t end) const;

 private:
  struct Range {
    SourceRange range;
    const Source* source;
    uint64_t at;  // in the buffer
  };
  void add(const Part& part, uint64_t gap);
  void merge(uint64_t gap);

  std::vector<Range> ranges_;  // by space and begin, apart
  uint64_t bytes_ = 0;
  const std::byte* buffer_ = nullptr;
};

// Reads [range.begin, range.end) of the space `source` is in.
void read_range(const Source& source, const SourceRange& range, std::byte* out);

}  // namespace moelora
