#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "lib/base/copy/copy_box.h"
#include "lib/base/tensor.h"

namespace moelora {

// One box of a contiguous run of a tensor's elements, and the strided view that fills it; all in
// elements. `dst` counts from the first element of the run.
struct Part {
  SourcePtr source;
  int64_t src = 0, dst = 0;
  std::vector<CopyAxis> axes;

  int64_t elements() const;
};

// The parts that fill elements [first, first + count) of `tensor`, row-major. What no part fills is
// zero.
std::vector<Part> parts_of(const Tensor& tensor, int64_t first, int64_t count);

// A range of bytes of a file, or of one source that is something else than a range of a file.
// Ranges of one space can be compared: two sources over one file are in the same space.
struct SourceRange {
  const void* space;    // the File or the Source
  uint64_t begin, end;  // of the file, or from the source's first element

  bool operator<(const SourceRange& other) const {  // by space, then by begin
    return space != other.space ? std::less<>()(space, other.space) : begin < other.begin;
  }
};

// Sorts `items` by their range and calls f(first, last, end) for every chain of them: of one space,
// each beginning less than `gap` bytes behind the furthest end before it.
template <class Item, class F>
void for_each_chain(std::vector<Item>& items, uint64_t gap, F&& f) {
  std::sort(items.begin(), items.end(),
            [](const Item& a, const Item& b) { return a.range < b.range; });
  for (auto first = items.begin(); first != items.end();) {
    const SourceRange& range = first->range;
    uint64_t end = range.end;
    auto last = first + 1;
    for (; last != items.end() && last->range.space == range.space && last->range.begin < end + gap;
         ++last)
      end = std::max(end, last->range.end);
    f(first, last, end);
    first = last;
  }
}

// The elements [begin, end) of its source that a part touches, as runs: runs that lie no further
// apart than `gap` elements are one. At most `most` runs; beyond that, one run over everything.
struct Run {
  int64_t begin, end;
};
SourceRange range_of(const Source& source, Run run);  // where its bytes lie
std::vector<Run> runs_of(const Part& part, int64_t gap, size_t most);

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
