#include "lib/base/tensor.h"

#include <fmt/core.h>

#include <algorithm>
#include <cstring>
#include <numeric>

#include "lib/base/copy/strided_copy.h"
#include "lib/base/error.h"
#include "lib/base/recipe.h"

namespace moelora {
namespace {

int64_t product(std::span<const int64_t> extents) {
  return std::accumulate(extents.begin(), extents.end(), int64_t{1}, std::multiplies<>());
}

template <class... T>
[[noreturn]] void refuse(fmt::format_string<T...> what, T&&... values) {
  throw Error("tensor", fmt::format(what, std::forward<T>(values)...));
}

}  // namespace

Tensor::Tensor(const Tensor&) = default;
Tensor::Tensor(Tensor&&) noexcept = default;
Tensor& Tensor::operator=(const Tensor&) = default;
Tensor& Tensor::operator=(Tensor&&) noexcept = default;
Tensor::~Tensor() = default;

std::string to_string(const Shape& shape) {
  std::string out = "[";
  for (size_t i = 0; i < shape.size(); ++i)
    out += (i == 0 ? "" : ", ") + std::to_string(static_cast<uint64_t>(shape[i]));
  return out + "]";
}

Tensor::Tensor(SourcePtr source, const Shape& shape) : Tensor(zeros(source->dtype(), shape)) {
  if (elements() != source->elements())
    refuse("shape {} does not hold {} elements", to_string(shape), source->elements());
  if (elements() > 0) *this = strided(std::move(source), shape, row_major_steps(shape));
}

Tensor Tensor::strided(SourcePtr source, Shape shape, std::vector<int64_t> stride, int64_t offset) {
  Tensor out = zeros(source->dtype(), shape);
  if (out.elements() == 0) return out;
  const std::vector<int64_t> steps = row_major_steps(shape);
  for (size_t d = 0; d < shape.size(); ++d)
    if (shape[d] == 1) stride[d] = steps[d];  // nobody takes that step
  out.recipe_.pieces.push_back({std::move(source), offset, std::vector<int64_t>(shape.size(), 0),
                                std::move(shape), std::move(stride)});
  return out;
}

Tensor Tensor::zeros(DType dtype, const Shape& shape) {
  Tensor out;
  out.dtype_ = dtype;
  out.shape_ = out.recipe_.axes = shape;
  out.axes_of_dim_.assign(shape.size(), 1);
  return out;
}

Tensor Tensor::of_f32(const Shape& shape, std::span<const float> values) {
  std::vector<std::byte> bytes(values.size_bytes());
  if (!bytes.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  return Tensor(std::make_shared<MemorySource>(DType::F32, std::move(bytes)), shape);
}

int64_t Tensor::elements() const { return product(shape_); }

uint64_t Tensor::bytes() const {
  return static_cast<uint64_t>(elements()) * static_cast<uint64_t>(dtype_bits(dtype_)) / 8;
}

size_t Tensor::axis_begin(int d) const {
  return static_cast<size_t>(std::accumulate(axes_of_dim_.begin(), axes_of_dim_.begin() + d, 0));
}

Tensor Tensor::reshape(const Shape& shape) const {
  if (product(shape) != elements())
    refuse("cannot view {} as {}", to_string(shape_), to_string(shape));
  Tensor out = zeros(dtype_, shape);
  if (elements() == 0) return out;
  out.recipe_ = recipe_;
  out.recipe_.erase_units();
  out.axes_of_dim_ = out.recipe_.cut(shape);
  size_t a = 0;
  for (int& axes : out.axes_of_dim_) {
    if (axes == 0) {
      out.recipe_.insert_unit(a);
      axes = 1;
    }
    a += static_cast<size_t>(axes);
  }
  return out;
}

Tensor Tensor::permute(const std::vector<int>& order) const {
  Tensor out = zeros(dtype_, {});
  std::vector<size_t> from;  // axis a of the result is axis from[a] of this
  for (int d : order) {
    out.shape_.push_back(dim(d));
    out.axes_of_dim_.push_back(axes_of_dim_[static_cast<size_t>(d)]);
    for (int i = 0; i < out.axes_of_dim_.back(); ++i)
      from.push_back(axis_begin(d) + static_cast<size_t>(i));
  }
  const auto reordered = [&](const std::vector<int64_t>& v) {
    std::vector<int64_t> r;
    for (size_t a : from) r.push_back(v[a]);
    return r;
  };
  out.recipe_.axes = reordered(recipe_.axes);
  for (const Piece& p : recipe_.pieces)
    out.recipe_.pieces.push_back(
        {p.source, p.offset, reordered(p.start), reordered(p.count), reordered(p.stride)});
  return out;
}

Tensor Tensor::transpose(int a, int b) const {
  std::vector<int> order(static_cast<size_t>(rank()));
  std::iota(order.begin(), order.end(), 0);
  std::swap(order[static_cast<size_t>(a)], order[static_cast<size_t>(b)]);
  return permute(order);
}

Tensor Tensor::with_single_axis(int d) const {
  Tensor out = *this;
  int& axes = out.axes_of_dim_[static_cast<size_t>(d)];
  for (; axes > 1; --axes) out.recipe_.merge(axis_begin(d) + static_cast<size_t>(axes) - 2);
  return out;
}

Tensor Tensor::slice(int d, int64_t first, int64_t count) const {
  if (first < 0 || count < 0 || first + count > dim(d))
    refuse("rows {}..{} of dim {} of {}", first, first + count, d, to_string(shape_));
  Tensor out = with_single_axis(d);
  const size_t a = out.axis_begin(d);
  out.shape_[static_cast<size_t>(d)] = out.recipe_.axes[a] = count;
  std::vector<Piece> kept;
  for (Piece& p : out.recipe_.pieces) {
    const int64_t lo = std::max(p.start[a], first);
    const int64_t hi = std::min(p.start[a] + p.count[a], first + count);
    if (hi <= lo) continue;
    p.offset += (lo - p.start[a]) * p.stride[a];
    p.start[a] = lo - first;
    p.count[a] = hi - lo;
    kept.push_back(std::move(p));
  }
  out.recipe_.pieces = std::move(kept);
  if (out.elements() == 0) out.recipe_.pieces.clear();
  return out;
}

Tensor Tensor::select(int d, int64_t index) const {
  if (index < 0 || index >= dim(d)) refuse("index {} of dim {} of {}", index, d, to_string(shape_));
  Tensor out = *this;
  TensorRecipe& recipe = out.recipe_;
  const size_t begin = axis_begin(d);
  for (int i = axes_of_dim_[static_cast<size_t>(d)]; i-- > 0;) {
    const size_t a = begin + static_cast<size_t>(i);
    const int64_t at = index % recipe.axes[a];
    index /= recipe.axes[a];
    std::erase_if(recipe.pieces,
                  [&](const Piece& p) { return at < p.start[a] || at >= p.start[a] + p.count[a]; });
    for (Piece& p : recipe.pieces) p.offset += (at - p.start[a]) * p.stride[a];
    recipe.erase(a);
  }
  out.shape_.erase(out.shape_.begin() + d);
  out.axes_of_dim_.erase(out.axes_of_dim_.begin() + d);
  return out;
}

Tensor Tensor::unsqueeze(int d) const {
  Tensor out = *this;
  out.recipe_.insert_unit(axis_begin(d));
  out.shape_.insert(out.shape_.begin() + d, 1);
  out.axes_of_dim_.insert(out.axes_of_dim_.begin() + d, 1);
  return out;
}

Tensor Tensor::broadcast(int d, int64_t count) const {
  if (dim(d) != 1) refuse("cannot broadcast dim {} of {}", d, to_string(shape_));
  Tensor out = with_single_axis(d);
  const size_t a = out.axis_begin(d);
  out.shape_[static_cast<size_t>(d)] = out.recipe_.axes[a] = count;
  for (Piece& p : out.recipe_.pieces) p.start[a] = 0, p.count[a] = count, p.stride[a] = 0;
  if (out.elements() == 0) out.recipe_.pieces.clear();
  return out;
}

Tensor Tensor::concat(int d, std::span<const Tensor> parts) {
  if (parts.empty()) refuse("nothing to concatenate");
  if (parts.size() == 1) return parts.front();
  const Tensor& model = parts.front();
  std::vector<Tensor> aligned;
  bool same_axes = true;
  int64_t extent = 0;
  for (const Tensor& part : parts) {
    Shape expected = part.shape_;
    if (part.rank() == model.rank()) expected[static_cast<size_t>(d)] = model.dim(d);
    if (expected != model.shape_ || part.dtype_ != model.dtype_)
      refuse("cannot concatenate {} {} with {} {} along dim {}", dtype_name(part.dtype_),
             to_string(part.shape_), dtype_name(model.dtype_), to_string(model.shape_), d);
    extent += part.dim(d);
    if (part.elements() == 0) continue;
    aligned.push_back(part.with_single_axis(d));
    same_axes = same_axes && aligned.back().axes_of_dim_ == aligned.front().axes_of_dim_;
    for (size_t a = 0; same_axes && a < aligned.back().recipe_.axes.size(); ++a)
      same_axes = a == aligned.back().axis_begin(d) ||
                  aligned.back().recipe_.axes[a] == aligned.front().recipe_.axes[a];
  }
  if (aligned.empty()) {
    Shape shape = model.shape_;
    shape[static_cast<size_t>(d)] = extent;
    return zeros(model.dtype_, shape);
  }
  if (!same_axes)
    for (Tensor& part : aligned)
      for (int other = 0; other < part.rank(); ++other) part = part.with_single_axis(other);
  Tensor out = aligned.front();
  const size_t a = out.axis_begin(d);
  out.shape_[static_cast<size_t>(d)] = out.recipe_.axes[a] = extent;
  out.recipe_.pieces.clear();
  int64_t at = 0;
  for (Tensor& part : aligned) {
    for (Piece& p : part.recipe_.pieces) {
      p.start[a] += at;
      out.recipe_.pieces.push_back(std::move(p));
    }
    at += part.dim(d);
  }
  return out;
}

Tensor Tensor::assemble(DType dtype, const Shape& shape, std::span<const PlacedTensor> parts) {
  Tensor out = zeros(dtype, shape);
  for (const PlacedTensor& placed : parts) {
    Tensor part = placed.part;
    bool fits = part.dtype_ == dtype && part.shape_.size() == shape.size() &&
                placed.at.size() == shape.size();
    for (size_t d = 0; fits && d < shape.size(); ++d)
      fits = placed.at[d] >= 0 && placed.at[d] <= shape[d] - part.shape_[d];
    if (!fits)
      refuse("cannot put {} {} at {} of {} {}", dtype_name(part.dtype_), to_string(part.shape_),
             to_string(placed.at), dtype_name(dtype), to_string(shape));
    for (int d = 0; d < part.rank(); ++d) part = part.with_single_axis(d);
    for (Piece& p : part.recipe_.pieces) {
      for (size_t d = 0; d < shape.size(); ++d) p.start[d] += placed.at[d];
      out.recipe_.pieces.push_back(std::move(p));
    }
  }
  return out;
}

Tensor Tensor::stack(std::span<const Tensor> parts) {
  std::vector<Tensor> rows;
  rows.reserve(parts.size());
  for (const Tensor& part : parts) rows.push_back(part.unsqueeze(0));
  return concat(0, rows);
}

bool Tensor::same_recipe(const Tensor& other) const {
  const auto same = [](const Piece& a, const Piece& b) {
    return a.source == b.source && a.offset == b.offset && a.start == b.start &&
           a.count == b.count && a.stride == b.stride;
  };
  return dtype_ == other.dtype_ && shape_ == other.shape_ && recipe_.axes == other.recipe_.axes &&
         std::equal(recipe_.pieces.begin(), recipe_.pieces.end(), other.recipe_.pieces.begin(),
                    other.recipe_.pieces.end(), same);
}

void Tensor::read(std::byte* out) const {
  if (elements() == 0) return;  // `out` may be null
  const std::vector<int64_t> dst_step = row_major_steps(recipe_.axes);
  if (recipe_.pieces.size() == 1 && recipe_.pieces[0].count == recipe_.axes &&
      recipe_.pieces[0].stride == dst_step &&
      recipe_.pieces[0].source->granule() == 1) {  // one run of its source
    recipe_.pieces[0].source->read(recipe_.pieces[0].offset, elements(), out);
    return;
  }
  std::memset(out, 0, bytes());
  if (dtype_bits(dtype_) % 8 != 0) {  // passed through whole
    for (const Piece& p : recipe_.pieces) p.source->read(0, p.source->elements(), out);
    return;
  }
  const int width = dtype_bytes(dtype_);
  std::vector<std::byte> held;
  for (const Piece& p : recipe_.pieces) {
    int64_t lo = p.offset, hi = p.offset, at = 0;
    std::vector<CopyAxis> loops;
    for (size_t a = 0; a < recipe_.axes.size(); ++a) {
      const int64_t reach = (p.count[a] - 1) * p.stride[a];
      (reach < 0 ? lo : hi) += reach;
      at += p.start[a] * dst_step[a];
      loops.push_back({p.count[a], p.stride[a], dst_step[a]});
    }
    const int64_t granule = p.source->granule();
    lo -= lo % granule;
    hi = std::min(p.source->elements(), (hi / granule + 1) * granule);
    held.resize(static_cast<size_t>((hi - lo) * width));
    p.source->read(lo, hi - lo, held.data());
    strided_copy(width, loops, held.data() + (p.offset - lo) * width, out + at * width);
  }
}

std::vector<std::byte> Tensor::read() const {
  std::vector<std::byte> out(bytes());
  read(out.data());
  return out;
}

}  // namespace moelora
