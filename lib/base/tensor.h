#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lib/base/recipe.h"

namespace moelora {

using Shape = std::vector<int64_t>;

// "[32, 2880, 16]". Extents print as unsigned: a file may say [0, 2^64-1], which holds nothing.
std::string to_string(const Shape& shape);

struct PlacedTensor;
struct TensorDraft;
struct TensorForm;

// A lazy tensor: dtype, shape and a recipe. Copies share them, so that a copy costs nothing; what
// is one source in its order, as every tensor of a file, gets its recipe when it is asked for.
// Slicing, transposing, reshaping, stacking and broadcasting only rewrite the recipe; no byte is
// read before read() or the writer asks. Boxes never overlap; what no box covers is zero. Data
// movement never changes a bit: whatever does (cast, decode) is a Source, which says so in
// change(). Sub-byte dtypes (F4, F6) can be passed through whole and reshaped, nothing else.
// Operations throw Error when shapes do not allow them.
class Tensor {
 public:
  Tensor() = default;                     // of rank 0, F32
  Tensor(SourcePtr source, Shape shape);  // REQUIRES: source->elements() == product(shape)

  // Element (i0, i1, ..) is element offset + sum(i_d * stride_d) of the source. REQUIRES: one
  // stride per dim, none negative, and the last element lies within the source.
  static Tensor strided(SourcePtr source, Shape shape, std::vector<int64_t> stride,
                        int64_t offset = 0);
  static Tensor zeros(DType dtype, Shape shape);
  static Tensor of_f32(const Shape& shape, std::span<const float> values);

  DType dtype() const;
  const Shape& shape() const;
  int rank() const { return static_cast<int>(shape().size()); }
  int64_t dim(int d) const { return shape()[static_cast<size_t>(d)]; }
  int64_t elements() const;
  uint64_t bytes() const;

  Tensor reshape(const Shape& shape) const;
  Tensor permute(const std::vector<int>& order) const;  // result dim d is this dim order[d]
  Tensor transpose(int a, int b) const;
  Tensor slice(int dim, int64_t first, int64_t count) const;
  Tensor select(int dim, int64_t index) const;     // one index; the dim disappears
  std::vector<Tensor> unstack() const;             // select(0, i) of each i
  Tensor unsqueeze(int dim) const;                 // a new dim of extent 1 before `dim`
  Tensor broadcast(int dim, int64_t count) const;  // REQUIRES: dim(dim) == 1
  static Tensor concat(int dim, std::span<const Tensor> parts);
  static Tensor stack(std::span<const Tensor> parts);  // along a new dim 0
  // The parts, each at its place, and zeros between them. Throws Error for a part of another type
  // or one that reaches beyond `shape`. REQUIRES: no two parts overlap.
  static Tensor assemble(DType dtype, const Shape& shape, std::span<const PlacedTensor> parts);

  // The same tensor with every source replaced; `f` is called once for each distinct source and
  // must keep the element count. This is how a cast is put under a tensor.
  Tensor map_sources(DType dtype, const std::function<SourcePtr(const SourcePtr&)>& f) const;

  // True when both have the same shape and the same recipe, hence the same bytes. False decides
  // nothing: use identical() of lib/adapter/adapter.h to look at the bytes.
  bool same_recipe(const Tensor& other) const;

  // Evaluates the whole tensor, row-major, into bytes() bytes. For small tensors and tests; the
  // writer plans many tensors together (lib/io/tensor_writer.h).
  void read(std::byte* out) const;
  std::vector<std::byte> read() const;

  // The recipe, for the writer and the report. `axes()` are the axis extents, outermost first;
  // their product is elements(). Dim d is the axes [axis_begin(d), axis_begin(d+1)).
  const std::vector<int64_t>& axes() const;
  const std::vector<Piece>& pieces() const;

 private:
  Tensor(TensorDraft&& draft);
  const TensorForm& form() const;
  TensorDraft draft() const;

  std::shared_ptr<const TensorForm> form_;  // null: as Tensor()
};

// A tensor in a larger one of as many dims: its first element is element `at` of that.
struct PlacedTensor {
  Tensor part;
  std::vector<int64_t> at;
};

// Sorted by name, hence deterministic.
using TensorMap = std::map<std::string, Tensor>;

}  // namespace moelora
