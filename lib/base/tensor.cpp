#include "lib/base/tensor.h"

#include <fmt/core.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <numeric>
#include <optional>
#include <utility>

#include "lib/base/copy/strided_copy.h"
#include "lib/base/error.h"

namespace moelora {

// What a tensor's recipe makes of its dims.
struct TensorDraft {
  DType dtype = DType::F32;
  Shape shape;
  TensorRecipe recipe;
  std::vector<int> axes_of_dim;  // how many axes each dim has; at least one

  static TensorDraft zeros(DType dtype, const Shape& shape) {
    return {dtype, shape, {shape, {}}, std::vector<int>(shape.size(), 1)};
  }

  TensorDraft without_pieces() const { return {dtype, shape, {recipe.axes, {}}, axes_of_dim}; }

  // Dim d is the axes [axis_begin(d), axis_begin(d + 1)).
  size_t axis_begin(int d) const {
    return static_cast<size_t>(std::accumulate(axes_of_dim.begin(), axes_of_dim.begin() + d, 0));
  }

  void make_single_axis(int d) {
    int& axes = axes_of_dim[static_cast<size_t>(d)];
    for (; axes > 1; --axes) recipe.merge(axis_begin(d) + static_cast<size_t>(axes) - 2);
  }

  void make_zero_if_empty() {
    if (std::find(shape.begin(), shape.end(), 0) != shape.end()) recipe.pieces.clear();
  }
};

// What copies of a tensor share.
struct TensorForm {
  TensorForm(DType of, Shape extents, SourcePtr source = nullptr)
      : dtype(of), shape(std::move(extents)), whole(std::move(source)) {}
  explicit TensorForm(TensorDraft&& draft)
      : dtype(draft.dtype), shape(draft.shape), parts_(new TensorDraft(std::move(draft))) {}
  TensorForm(const TensorForm&) = delete;
  TensorForm& operator=(const TensorForm&) = delete;
  ~TensorForm() { delete parts_.load(); }

  // Made when it is first asked for, by any thread.
  const TensorDraft& parts() const {
    const TensorDraft* known = parts_.load(std::memory_order_acquire);
    if (known != nullptr) return *known;
    auto made = std::make_unique<TensorDraft>(TensorDraft::zeros(dtype, shape));
    if (whole != nullptr)
      made->recipe.pieces.push_back(
          {whole, 0, std::vector<int64_t>(shape.size(), 0), shape, row_major_steps(shape)});
    if (!parts_.compare_exchange_strong(known, made.get())) return *known;
    return *made.release();
  }

  const DType dtype;
  const Shape shape;
  const SourcePtr whole;  // the tensor is this source, element for element; null: see parts()

 private:
  mutable std::atomic<const TensorDraft*> parts_ = nullptr;  // null of zeros too
};

namespace {

int64_t product(std::span<const int64_t> extents) {
  return std::accumulate(extents.begin(), extents.end(), int64_t{1}, std::multiplies<>());
}

template <class... T>
[[noreturn]] void refuse(fmt::format_string<T...> what, T&&... values) {
  throw Error("tensor", fmt::format(what, std::forward<T>(values)...));
}

// Before an extent is looked at: Tensor() has none.
void check_dim(const Tensor& tensor, int d) {
  if (d < 0 || d >= tensor.rank()) refuse("no dim {} of {}", d, to_string(tensor.shape()));
}

}  // namespace

Tensor::Tensor(TensorDraft&& draft) : form_(std::make_shared<TensorForm>(std::move(draft))) {}

const TensorForm& Tensor::form() const {
  static const TensorForm kNone(DType::F32, {});
  return form_ == nullptr ? kNone : *form_;
}

TensorDraft Tensor::draft() const { return form().parts(); }
DType Tensor::dtype() const { return form().dtype; }
const Shape& Tensor::shape() const { return form().shape; }
const std::vector<int64_t>& Tensor::axes() const { return form().parts().recipe.axes; }
const std::vector<Piece>& Tensor::pieces() const { return form().parts().recipe.pieces; }

std::string to_string(const Shape& shape) {
  std::string out = "[";
  for (size_t i = 0; i < shape.size(); ++i)
    out += (i == 0 ? "" : ", ") + std::to_string(static_cast<uint64_t>(shape[i]));
  return out + "]";
}

Tensor::Tensor(SourcePtr source, Shape shape) {
  const int64_t count = product(shape);
  if (count != source->elements())
    refuse("shape {} does not hold {} elements", to_string(shape), source->elements());
  const DType dtype = source->dtype();
  if (count == 0) source.reset();
  form_ = std::make_shared<TensorForm>(dtype, std::move(shape), std::move(source));
}

Tensor Tensor::strided(SourcePtr source, Shape shape, std::vector<int64_t> stride, int64_t offset) {
  TensorDraft out = TensorDraft::zeros(source->dtype(), shape);
  if (product(shape) == 0) return out;
  const std::vector<int64_t> steps = row_major_steps(shape);
  for (size_t d = 0; d < shape.size(); ++d)
    if (shape[d] == 1) stride[d] = steps[d];  // nobody takes that step
  out.recipe.pieces.push_back({std::move(source), offset, std::vector<int64_t>(shape.size(), 0),
                               std::move(shape), std::move(stride)});
  return out;
}

Tensor Tensor::zeros(DType dtype, Shape shape) {
  Tensor out;
  out.form_ = std::make_shared<TensorForm>(dtype, std::move(shape));
  return out;
}

Tensor Tensor::of_f32(const Shape& shape, std::span<const float> values) {
  std::vector<std::byte> bytes(values.size_bytes());
  if (!bytes.empty()) std::memcpy(bytes.data(), values.data(), bytes.size());
  return Tensor(std::make_shared<MemorySource>(DType::F32, std::move(bytes)), shape);
}

int64_t Tensor::elements() const { return product(shape()); }

uint64_t Tensor::bytes() const {
  return static_cast<uint64_t>(elements()) * static_cast<uint64_t>(dtype_bits(dtype())) / 8;
}

Tensor Tensor::reshape(const Shape& to) const {
  if (product(to) != elements()) refuse("cannot view {} as {}", to_string(shape()), to_string(to));
  if (elements() == 0) return zeros(dtype(), to);
  if (form().whole != nullptr) return {form().whole, to};
  TensorDraft out = TensorDraft::zeros(dtype(), to);
  out.recipe = form().parts().recipe;
  out.recipe.erase_units();
  out.axes_of_dim = out.recipe.cut(to);
  size_t a = 0;
  for (int& axes : out.axes_of_dim) {
    if (axes == 0) {
      out.recipe.insert_unit(a);
      axes = 1;
    }
    a += static_cast<size_t>(axes);
  }
  return out;
}

Tensor Tensor::permute(const std::vector<int>& order) const {
  const TensorDraft& in = form().parts();
  TensorDraft out;
  out.dtype = in.dtype;
  std::vector<size_t> from;  // axis a of the result is axis from[a] of this
  for (int d : order) {
    out.shape.push_back(dim(d));
    out.axes_of_dim.push_back(in.axes_of_dim[static_cast<size_t>(d)]);
    for (int i = 0; i < out.axes_of_dim.back(); ++i)
      from.push_back(in.axis_begin(d) + static_cast<size_t>(i));
  }
  const auto reordered = [&](const std::vector<int64_t>& v) {
    std::vector<int64_t> r;
    for (size_t a : from) r.push_back(v[a]);
    return r;
  };
  out.recipe.axes = reordered(in.recipe.axes);
  for (const Piece& p : in.recipe.pieces)
    out.recipe.pieces.push_back(
        {p.source, p.offset, reordered(p.start), reordered(p.count), reordered(p.stride)});
  return out;
}

Tensor Tensor::transpose(int a, int b) const {
  std::vector<int> order(static_cast<size_t>(rank()));
  std::iota(order.begin(), order.end(), 0);
  std::swap(order[static_cast<size_t>(a)], order[static_cast<size_t>(b)]);
  return permute(order);
}

Tensor Tensor::slice(int d, int64_t first, int64_t count) const {
  check_dim(*this, d);
  if (first < 0 || count < 0 || first + count > dim(d))
    refuse("rows {}..{} of dim {} of {}", first, first + count, d, to_string(shape()));
  const TensorDraft& parts = form().parts();
  std::optional<TensorDraft> merged;
  if (parts.axes_of_dim[static_cast<size_t>(d)] > 1) {
    merged = parts;
    merged->make_single_axis(d);
  }
  const TensorDraft& in = merged ? *merged : parts;
  TensorDraft out = in.without_pieces();
  const size_t a = in.axis_begin(d);
  out.shape[static_cast<size_t>(d)] = out.recipe.axes[a] = count;
  for (const Piece& p : in.recipe.pieces) {
    const int64_t lo = std::max(p.start[a], first);
    const int64_t hi = std::min(p.start[a] + p.count[a], first + count);
    if (hi <= lo) continue;
    Piece& kept = out.recipe.pieces.emplace_back(p);
    kept.offset += (lo - p.start[a]) * p.stride[a];
    kept.start[a] = lo - first;
    kept.count[a] = hi - lo;
  }
  out.make_zero_if_empty();
  return out;
}

Tensor Tensor::select(int d, int64_t index) const {
  check_dim(*this, d);
  if (index < 0 || index >= dim(d))
    refuse("index {} of dim {} of {}", index, d, to_string(shape()));
  const TensorDraft& in = form().parts();
  TensorDraft out = in.without_pieces();
  const size_t begin = in.axis_begin(d);
  std::vector<int64_t> at(static_cast<size_t>(in.axes_of_dim[static_cast<size_t>(d)]));
  for (size_t i = at.size(); i-- > 0;) {
    at[i] = index % in.recipe.axes[begin + i];
    index /= in.recipe.axes[begin + i];
  }
  for (const Piece& p : in.recipe.pieces) {
    int64_t offset = p.offset;
    bool covers = true;
    for (size_t i = 0, a = begin; covers && i < at.size(); ++i, ++a) {
      covers = at[i] >= p.start[a] && at[i] < p.start[a] + p.count[a];
      offset += (at[i] - p.start[a]) * p.stride[a];
    }
    if (covers) out.recipe.pieces.emplace_back(p).offset = offset;
  }
  for (size_t i = at.size(); i-- > 0;) out.recipe.erase(begin + i);
  out.shape.erase(out.shape.begin() + d);
  out.axes_of_dim.erase(out.axes_of_dim.begin() + d);
  return out;
}

// In one walk over the pieces: of stacks of experts there is a piece an expert.
std::vector<Tensor> Tensor::unstack() const {
  check_dim(*this, 0);
  const TensorDraft& in = form().parts();
  std::vector<Tensor> out;
  out.reserve(static_cast<size_t>(dim(0)));
  if (in.axes_of_dim.front() > 1) {
    for (int64_t i = 0; i < dim(0); ++i) out.push_back(select(0, i));
    return out;
  }
  TensorDraft row = in.without_pieces();
  row.recipe.erase(0);
  row.shape.erase(row.shape.begin());
  row.axes_of_dim.erase(row.axes_of_dim.begin());
  std::vector<TensorDraft> rows(static_cast<size_t>(dim(0)), row);
  for (Piece piece : in.recipe.pieces) {
    const int64_t first = piece.start[0], count = piece.count[0], stride = piece.stride[0];
    for (std::vector<int64_t>* axes : {&piece.start, &piece.count, &piece.stride})
      axes->erase(axes->begin());
    for (int64_t i = 0; i < count; ++i, piece.offset += stride)
      rows[static_cast<size_t>(first + i)].recipe.pieces.push_back(piece);
  }
  for (TensorDraft& each : rows) out.push_back(Tensor(std::move(each)));
  return out;
}

Tensor Tensor::unsqueeze(int d) const {
  TensorDraft out = draft();
  out.recipe.insert_unit(out.axis_begin(d));
  out.shape.insert(out.shape.begin() + d, 1);
  out.axes_of_dim.insert(out.axes_of_dim.begin() + d, 1);
  return out;
}

Tensor Tensor::broadcast(int d, int64_t count) const {
  check_dim(*this, d);
  if (dim(d) != 1) refuse("cannot broadcast dim {} of {}", d, to_string(shape()));
  TensorDraft out = draft();
  out.make_single_axis(d);
  const size_t a = out.axis_begin(d);
  out.shape[static_cast<size_t>(d)] = out.recipe.axes[a] = count;
  for (Piece& p : out.recipe.pieces) p.start[a] = 0, p.count[a] = count, p.stride[a] = 0;
  out.make_zero_if_empty();
  return out;
}

Tensor Tensor::concat(int d, std::span<const Tensor> parts) {
  if (parts.empty()) refuse("nothing to concatenate");
  if (parts.size() == 1) return parts.front();
  const Tensor& model = parts.front();
  check_dim(model, d);
  std::vector<TensorDraft> aligned;
  bool same_axes = true;
  int64_t extent = 0;
  for (const Tensor& part : parts) {
    Shape expected = part.shape();
    if (part.rank() == model.rank()) expected[static_cast<size_t>(d)] = model.dim(d);
    if (expected != model.shape() || part.dtype() != model.dtype())
      refuse("cannot concatenate {} {} with {} {} along dim {}", dtype_name(part.dtype()),
             to_string(part.shape()), dtype_name(model.dtype()), to_string(model.shape()), d);
    extent += part.dim(d);
    if (part.elements() == 0) continue;
    aligned.push_back(part.draft());
    TensorDraft& last = aligned.back();
    last.make_single_axis(d);
    same_axes = same_axes && last.axes_of_dim == aligned.front().axes_of_dim;
    for (size_t a = 0; same_axes && a < last.recipe.axes.size(); ++a)
      same_axes = a == last.axis_begin(d) || last.recipe.axes[a] == aligned.front().recipe.axes[a];
  }
  if (aligned.empty()) {
    Shape shape = model.shape();
    shape[static_cast<size_t>(d)] = extent;
    return zeros(model.dtype(), std::move(shape));
  }
  if (!same_axes)
    for (TensorDraft& part : aligned)
      for (int other = 0; other < model.rank(); ++other) part.make_single_axis(other);
  TensorDraft out = aligned.front();
  const size_t a = out.axis_begin(d);
  out.shape[static_cast<size_t>(d)] = out.recipe.axes[a] = extent;
  out.recipe.pieces.clear();
  int64_t at = 0;
  for (TensorDraft& part : aligned) {
    for (Piece& p : part.recipe.pieces) {
      p.start[a] += at;
      out.recipe.pieces.push_back(std::move(p));
    }
    at += part.shape[static_cast<size_t>(d)];
  }
  return out;
}

Tensor Tensor::assemble(DType dtype, const Shape& shape, std::span<const PlacedTensor> parts) {
  TensorDraft out = TensorDraft::zeros(dtype, shape);
  for (const PlacedTensor& placed : parts) {
    TensorDraft part = placed.part.draft();
    bool fits = part.dtype == dtype && part.shape.size() == shape.size() &&
                placed.at.size() == shape.size();
    for (size_t d = 0; fits && d < shape.size(); ++d)
      fits = placed.at[d] >= 0 && placed.at[d] <= shape[d] - part.shape[d];
    if (!fits)
      refuse("cannot put {} {} at {} of {} {}", dtype_name(part.dtype), to_string(part.shape),
             to_string(placed.at), dtype_name(dtype), to_string(shape));
    for (int d = 0; d < placed.part.rank(); ++d) part.make_single_axis(d);
    for (Piece& p : part.recipe.pieces) {
      for (size_t d = 0; d < shape.size(); ++d) p.start[d] += placed.at[d];
      out.recipe.pieces.push_back(std::move(p));
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

Tensor Tensor::map_sources(DType to, const std::function<SourcePtr(const SourcePtr&)>& f) const {
  if (form().whole != nullptr && dtype() == form().whole->dtype()) {
    SourcePtr source = f(form().whole);
    if (source->dtype() == to) return {std::move(source), shape()};
  }
  TensorDraft out = draft();
  out.dtype = to;
  for (Piece& p : out.recipe.pieces) p.source = f(p.source);
  return out;
}

bool Tensor::same_recipe(const Tensor& other) const {
  if (dtype() != other.dtype() || shape() != other.shape()) return false;
  if (form_ == other.form_ || (form().whole != nullptr && form().whole == other.form().whole))
    return true;
  const auto same = [](const Piece& a, const Piece& b) {
    return a.source == b.source && a.offset == b.offset && a.start == b.start &&
           a.count == b.count && a.stride == b.stride;
  };
  const TensorRecipe &mine = form().parts().recipe, &its = other.form().parts().recipe;
  return mine.axes == its.axes && std::equal(mine.pieces.begin(), mine.pieces.end(),
                                             its.pieces.begin(), its.pieces.end(), same);
}

void Tensor::read(std::byte* out) const {
  if (elements() == 0) return;  // `out` may be null
  if (form().whole != nullptr && form().whole->granule() == 1)
    return form().whole->read(0, elements(), out);
  const TensorRecipe& recipe = form().parts().recipe;
  const std::vector<int64_t> dst_step = row_major_steps(recipe.axes);
  if (recipe.pieces.size() == 1 && recipe.pieces[0].count == recipe.axes &&
      recipe.pieces[0].stride == dst_step &&
      recipe.pieces[0].source->granule() == 1) {  // one run of its source
    recipe.pieces[0].source->read(recipe.pieces[0].offset, elements(), out);
    return;
  }
  std::memset(out, 0, bytes());
  if (dtype_bits(dtype()) % 8 != 0) {  // passed through whole
    for (const Piece& p : recipe.pieces) p.source->read(0, p.source->elements(), out);
    return;
  }
  const int width = dtype_bytes(dtype());
  std::vector<std::byte> held;
  for (const Piece& p : recipe.pieces) {
    int64_t lo = p.offset, hi = p.offset, at = 0;
    std::vector<CopyAxis> loops;
    for (size_t a = 0; a < recipe.axes.size(); ++a) {
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
