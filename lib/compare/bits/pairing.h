#pragma once

#include <cstdint>
#include <list>
#include <vector>

#include "lib/compare/bits/block_reader.h"
#include "lib/compare/bits/table.h"

namespace moelora::packed {

// Which ranks of a packed factor hold the source's. Others must be zero, but for the ranks of the
// other half where gate and up were fused with an A of their own each: A stacked, B block-diagonal.
enum class Placement : uint8_t {
  first,       // ranks 0 .. r
  after_gate,  // of up: after those of gate
  second_half  // of up: from the middle, where a server's slots of equal size put it
};

// What the packed adapter and its source say of one projection.
struct Pairing {
  ProjectionKey key;
  const ProjectionFactors* packed = nullptr;  // null: it has none
  const ProjectionFactors* source = nullptr;
  Placement placement = Placement::first;
  bool shares_packed_a = false;  // gate and up of the packed adapter are one fused factor
  // The other half in the source, where they are; null: it has none.
  const ProjectionFactors* source_sibling = nullptr;
  Placement sibling_placement = Placement::first;

  const Factor* packed_side(Side side) const { return packed ? &packed->side(side) : nullptr; }
  const Factor* source_side(Side side) const { return source ? &source->side(side) : nullptr; }
  bool same_width(Side side) const;  // true too where one of them has no factor

  int64_t experts() const;
  // scale of the source / scale of the packed; 1 where both are there and equal.
  double scale_ratio(int64_t expert) const;

  // The ranks of a packed factor of `packed_rank` that hold the source's, and the sibling's.
  struct Ranks {
    int64_t begin = 0, end = 0;
  };
  Ranks own_ranks(int64_t expert, int64_t packed_rank) const;
  Ranks sibling_ranks(int64_t expert, int64_t packed_rank) const;
};

// A and B of one expert.
struct PairId {
  size_t pairing;
  int64_t expert;
  friend auto operator<=>(const PairId&, const PairId&) = default;
};

struct Pairings {
  const Table &packed, &source;
  std::vector<Pairing> all;
  // Pairings that are read together: gate and up of a layer, which may lie in one tensor.
  std::vector<std::vector<size_t>> groups;
  std::list<ProjectionFactors> slices;  // rows of a module that the other adapter keeps apart
};

// Pairs everything in either table. Throws Error where one keeps gate and up rows fused in an order
// that is not known and the other does not.
Pairings pair_up(const Table& packed, const Table& source);

// A part of one side of a group of pairings that is read at once.
struct Window {
  size_t group;
  Side side;
  Box box;
};

struct PassOptions {
  int threads = 0;
  uint64_t window = 4 << 20;                    // bytes read at once, of both adapters
  uint64_t most() const { return 8 * window; }  // where the two layouts cross
};

// Cuts both sides of a group into windows of about options.window bytes of both adapters together:
// by x where some layout has the experts of one rank side by side, else by experts. Where that
// would break the runs of the other adapter, windows are larger, up to options.most().
std::vector<Window> windows_of(const Pairings& pairings, size_t group, const PassOptions& options);

// Reads windows of both adapters. One thread at a time.
class WindowReader {
 public:
  explicit WindowReader(const Pairings& pairings)
      : packed_(pairings.packed), source_(pairings.source) {}

  // Reads what a pairing has in a window. Returns the part of the window's box that its factors
  // reach, of width 0 where they do not. packed() and source() are valid until the next call.
  Box load(const Pairing& pairing, const Window& window);
  Part packed(int64_t expert) const { return part(packed_parts_, expert); }
  Part source(int64_t expert) const { return part(source_parts_, expert); }

 private:
  Part part(std::span<const Part> parts, int64_t expert) const {
    return parts.empty() ? Part{} : parts[static_cast<size_t>(expert - first_)];
  }

  BlockReader packed_, source_;
  std::span<const Part> packed_parts_, source_parts_;
  int64_t first_ = 0;  // expert of the parts
};

}  // namespace moelora::packed
