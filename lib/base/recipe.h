#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "lib/base/source.h"

namespace moelora {

// How far apart neighbours along each axis lie in a row-major array.
std::vector<int64_t> row_major_steps(std::span<const int64_t> extents);

// One box of a tensor's index space and the strided view of a source that fills it.
// The index space is the tensor's axes: its dims, each split into as many factors as its
// reshapes needed, outermost first. Element (i0, i1, ..) of the box is element
// offset + sum((i_a - start_a) * stride_a) of the source.
struct Piece {
  SourcePtr source;
  int64_t offset = 0;
  std::vector<int64_t> start, count, stride;  // one entry per axis
};

// The axes of a tensor and the boxes over them, while they are being cut and joined.
struct TensorRecipe {
  std::vector<int64_t> axes;
  std::vector<Piece> pieces;

  // Axis a of extent n becomes axes a, a+1 of extents n/inner, inner.
  void split(size_t a, int64_t inner);

  // Axes a, a+1 become one. A box that is not one straight line over both is cut into its rows.
  void merge(size_t a);

  void insert_unit(size_t a);
  void erase(size_t a);
  void erase_units();

  // Cuts the axes so that each extent of `shape` is a run of whole axes; returns the run lengths.
  // REQUIRES: no unit axes, equal products, no zero extent.
  std::vector<int> cut(const std::vector<int64_t>& shape);
};

}  // namespace moelora
