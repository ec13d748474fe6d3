#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "lib/base/arena.h"
#include "lib/base/copy/copy_box.h"
#include "lib/compare/bits/table.h"

namespace moelora::packed {

// A range of experts and of x of a factor; k is always whole.
struct Box {
  int64_t e0, e1, x0, x1;

  int64_t experts() const { return e1 - e0; }
  int64_t width() const { return x1 - x0; }
  friend bool operator==(const Box&, const Box&) = default;
};

// One expert's part of a box in a common order, whatever the layout: A as [k][x], B as [x][k].
struct Part {
  const std::byte* data = nullptr;  // null: this expert has no factor
  int64_t rank = 0;
  DType dtype = DType::F32;
  int bytes() const { return dtype_bytes(dtype); }  // of an element
};

// Reads boxes of factors into memory, in long runs where the layout allows. One thread at a time.
class BlockReader {
 public:
  explicit BlockReader(const Table& table) : table_(table) {}

  // One part per expert of the box, valid until the next call; none of a factor that is null or
  // nowhere. Asked for the same again (gate and up of a fused factor have one A), it answers
  // without reading.
  std::span<const Part> load(const Factor* factor, Side side, const Box& box);

 private:
  void load_block(const StridedBlock& block, Side side, const Box& box, std::byte* out);
  void fetch(const Stored& tensor, std::span<const CopyAxis> axes, int64_t offset, std::byte* out);
  void fetch_spans(const Stored& tensor, std::span<const CopyAxis> axes, int64_t offset,
                   int64_t together, std::byte* out);

  const Table& table_;
  Arena arena_, scratch_;
  std::vector<Part> parts_;
  std::vector<StridedBlock> last_blocks_;
  Box last_box_ = {0, 0, 0, 0};
  Side last_side_ = Side::A;
};

// Bytes of a box of this factor as parts; a matrix that experts share counts once.
uint64_t box_bytes(const Table& table, const Factor& factor, const Box& box);

}  // namespace moelora::packed
