#include "lib/engine/vllm/load/view.h"

#include <fmt/format.h>

#include <algorithm>

#include "lib/engine/vllm/load/event.h"

namespace moelora::vllm {
namespace {

// At most INT64_MAX: a file may give a tensor without elements any other extents.
int64_t product(const Shape& shape) {
  int64_t out = 1;
  for (int64_t extent : shape)
    if (__builtin_mul_overflow(out, extent, &out)) out = extent == 0 ? 0 : INT64_MAX;
  return out;
}

}  // namespace

View View::of(uint32_t tensor, const Shape& shape) {
  View out;
  out.shape = shape;
  for (int64_t& extent : out.shape) extent = extent < 0 ? INT64_MAX : extent;  // above 2^63
  out.strides.assign(shape.size(), 0);
  if (out.elements() != 0)
    for (size_t d = shape.size(), stride = 1; d-- > 0; stride *= static_cast<size_t>(out.shape[d]))
      out.strides[d] = static_cast<int64_t>(stride);
  out.sources = {tensor};
  return out;
}

View View::zeros(Shape shape) {
  View out;
  out.strides.assign(shape.size(), 0);
  out.shape = std::move(shape);
  return out;
}

View View::stack(std::vector<uint32_t> tensors,
                 const std::function<const Shape&(uint32_t)>& shape_of) {
  const Shape& first = shape_of(tensors.front());
  for (size_t i = 1; i < tensors.size(); ++i) check_stack(first, shape_of(tensors[i]), i);
  View out = of(tensors.front(), first);
  out.stacked = true;
  out.shape.insert(out.shape.begin(), static_cast<int64_t>(tensors.size()));
  out.strides.insert(out.strides.begin(), 0);
  out.sources = std::move(tensors);
  return out;
}

int64_t View::elements() const { return product(shape); }

int64_t View::size(int64_t d) const {
  if (d < 0) d += rank();
  if (d < 0 || d >= rank()) throw Raised("IndexError", "tuple index out of range");
  return dim(d);
}

View View::slice(int64_t d, int64_t first, int64_t end, int64_t step) const {
  if (d >= rank())
    throw Raised("IndexError", fmt::format("too many indices for tensor of dimension {}", rank()));
  const auto at = static_cast<size_t>(d);
  first = std::clamp<int64_t>(first, 0, shape[at]);
  end = std::clamp(end, first, shape[at]);
  View out = *this;
  out.shape[at] = (end - first + step - 1) / step;
  if (stacked && d == 0) {
    out.sources.assign(sources.begin() + first, sources.begin() + end);  // step 1 alone
    if (!scales.empty()) out.scales.assign(scales.begin() + first, scales.begin() + end);
  } else {
    out.offset += first * strides[at];
    out.strides[at] *= step;
  }
  return out;
}

View View::permute(const std::vector<int64_t>& order) const {
  View out = *this;
  for (size_t d = 0; d < order.size(); ++d) {
    out.shape[d] = shape[static_cast<size_t>(order[d])];
    out.strides[d] = strides[static_cast<size_t>(order[d])];
  }
  return out;
}

View View::transpose() const {
  View out = *this;
  std::reverse(out.shape.begin(), out.shape.end());
  std::reverse(out.strides.begin(), out.strides.end());
  return out;
}

View View::reshape(Shape wanted) const {
  Shape given = wanted;
  std::erase(given, -1);
  const int64_t known = product(given), count = elements();
  if (known == 0)
    throw Raised("RuntimeError",
                 fmt::format("cannot reshape tensor of 0 elements into shape [{}] because the "
                             "unspecified dimension size -1 can be any value and is ambiguous",
                             fmt::join(wanted, ", ")));
  if (count % known != 0)
    throw Raised("RuntimeError", fmt::format("shape '[{}]' is invalid for input of size {}",
                                             fmt::join(wanted, ", "), count));
  std::replace(wanted.begin(), wanted.end(), int64_t{-1}, count / known);
  View out = of(sources.front(), wanted);
  out.scale = scale;
  return out;
}

void check_stack(const Shape& first, const Shape& other, size_t entry) {
  if (first != other)
    throw Raised("RuntimeError",
                 fmt::format("stack expects each tensor to be equal size, but got {} at entry 0 "
                             "and {} at entry {}",
                             to_string(first), to_string(other), entry));
}

void check_copy(const Shape& destination, const Shape& source) {
  const size_t rank = std::max(destination.size(), source.size());
  const auto extent = [&](const Shape& shape, size_t d) {
    const size_t missing = rank - shape.size();
    return d < missing ? 1 : shape[d - missing];
  };
  Shape result(rank);
  for (size_t d = rank; d-- > 0;) {
    const int64_t a = extent(destination, d), b = extent(source, d);
    if (a != b && a != 1 && b != 1)
      throw Raised("RuntimeError", fmt::format("The size of tensor a ({}) must match the size of "
                                               "tensor b ({}) at non-singleton dimension {}",
                                               a, b, d));
    result[d] = a == 1 ? b : a;
  }
  if (result != destination)
    throw Raised("RuntimeError",
                 fmt::format("output with shape {} doesn't match the broadcast shape {}",
                             to_string(destination), to_string(result)));
}

}  // namespace moelora::vllm
