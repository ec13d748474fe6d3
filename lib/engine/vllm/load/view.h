#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "lib/base/tensor.h"

namespace moelora::vllm {

// A torch tensor of the server by its shape alone, with where each of its elements comes from in
// the file: element [i, j, ..] is element offset + sum(index * stride) of `sources[0]`, row-major;
// with `stacked`, dim 0 picks the source instead (torch.stack). The operations are torch's and
// raise what torch raises; none looks at a value.
struct View {
  Shape shape;
  std::vector<int64_t> strides;  // one per dim; that of a stacked dim 0 is not used
  int64_t offset = 0;
  std::vector<uint32_t> sources;  // indices of the file's tensors
  bool stacked = false;
  double scale = 1;  // what the server multiplies the values with, after rounding them to bf16
  std::vector<double> scales;  // of each source instead, where they are stacked; else empty

  static View of(uint32_t tensor, const Shape& shape);
  static View zeros(Shape shape);  // of no source
  // Raises RuntimeError when the shapes differ. REQUIRES at least one.
  static View stack(std::vector<uint32_t> tensors,
                    const std::function<const Shape&(uint32_t)>& shape_of);

  int64_t rank() const { return static_cast<int64_t>(shape.size()); }
  int64_t dim(int64_t d) const { return shape[static_cast<size_t>(d)]; }
  int64_t elements() const;

  // tensor.shape[d], d < 0 from the end. Raises IndexError.
  int64_t size(int64_t d) const;
  // tensor[.., first:end:step, ..] along `d`: what lies beyond the end is dropped, not refused.
  // Raises IndexError when there is no such dim.
  View slice(int64_t d, int64_t first, int64_t end, int64_t step = 1) const;
  View permute(const std::vector<int64_t>& order) const;
  View transpose() const;  // tensor.T
  // reshape(wanted), one of them -1. Raises RuntimeError. REQUIRES a view made by of().
  View reshape(Shape wanted) const;
};

// torch.stack of these, the second of which is number `entry`: raises RuntimeError where they
// differ.
void check_stack(const Shape& first, const Shape& other, size_t entry);

// buffer[..].copy_(source) of these shapes: raises RuntimeError where `source` does not broadcast.
void check_copy(const Shape& destination, const Shape& source);

}  // namespace moelora::vllm
