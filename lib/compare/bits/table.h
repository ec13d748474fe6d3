#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lib/base/tensor.h"
#include "lib/compare/bits/names.h"
#include "lib/compare/bits/scales.h"
#include "lib/model/model_spec.h"

namespace moelora::packed {

// A tensor as it lies in its file.
struct Stored {
  std::string name;
  DType dtype;
  Shape shape;
  SourcePtr source;    // null when the tensor has no elements
  int64_t offset = 0;  // of its first element in `source`
};

// The bytes of a tensor where they lie in one piece of a file; what is computed is evaluated, once
// and in memory.
Stored stored_tensor(const std::string& name, const Tensor& tensor);

// Where the elements of every factor of an adapter lie, whatever its layout. A factor of one expert
// is A(k, x), x an input, or B(k, x), x an output; k counts ranks. In every layout there is,
// element (e, k, x) of experts e lies at offset + e*e_step + k*k_step + x*x_step of one tensor: a
// layout is nothing but these three steps.

// Experts [first, first + count) of a factor in one tensor. A matrix that all experts share has
// e_step 0.
struct StridedBlock {
  size_t tensor;
  int64_t offset, e_step, k_step, x_step;
  int64_t first, count, rank;
};

struct Factor {
  int64_t width = 0;                 // extents of x
  std::vector<StridedBlock> blocks;  // by first; experts in none have no factor

  const StridedBlock* block_of(int64_t expert) const;  // null: the expert has none
};

// One projection of the routed experts of a layer, or a dense module (which has one "expert").
struct ProjectionKey {
  int layer = -1;  // -1: dense
  Projection projection = Projection::down;
  std::string module;  // of a dense one, in the spelling of the base in memory
  friend auto operator<=>(const ProjectionKey&, const ProjectionKey&) = default;
};
std::string to_string(
    const ProjectionKey& key);  // "layer 3 gate_proj", "model.layers.0.self_attn.q_proj"

struct ProjectionFactors {
  std::array<Factor, 2> sides;  // A, B
  std::vector<Scale> scales;    // one an expert, or one for all
  int64_t experts = 1;

  const Factor& side(Side s) const { return sides[static_cast<size_t>(s)]; }
  Factor& side(Side s) { return sides[static_cast<size_t>(s)]; }
  const Scale& scale(int64_t expert) const {
    return scales[scales.size() == 1 ? 0 : static_cast<size_t>(expert)];
  }
};

struct Table {
  std::vector<Stored> tensors;
  std::map<ProjectionKey, ProjectionFactors> projections;
  std::map<std::string, size_t> extras;  // whatever is no factor, by its name without the prefix
  int64_t experts = 0;
  // False where the order of fused gate and up rows is not known: they are projections gate_up.
  bool gate_up_apart = true;
};

// Bounds on hostile indices and dims.
inline constexpr int64_t kMostExperts = 1 << 16;

// A block of all experts, before their number is known.
inline constexpr int64_t kAllExperts = -1;

// What a tensor says of one side of one projection.
struct FactorPlace {
  int layer;  // -1: dense
  Projection projection;
  std::string module;  // of a dense one
  Side side;
  int64_t width;
  StridedBlock block;
  Scale scale;
  // Of fused gate and up rows; nullopt where it is not known.
  std::optional<GateUpOrder> order = {};
};

// Error at "TENSOR SHAPE".
[[noreturn]] void refuse(const Stored& tensor, const std::string& what);

// Fills the projections of a table, tensor by tensor, and checks them together. Throws Error.
class TableBuilder {
 public:
  explicit TableBuilder(Table& table) : table_(table) {}

  // A fused factor becomes one of gate and one of up: both have its A, and each its rows of B.
  void add(const FactorPlace& placed);

  // To be called once, when the number of experts is known.
  void finish(int64_t experts, const std::string& where);

 private:
  void add_unit(const ProjectionKey& key, const FactorPlace& placed, int64_t width,
                const StridedBlock& block);
  void add_scale(ProjectionFactors& unit, const StridedBlock& block, const Scale& scale);
  void finish(Factor& factor, int64_t experts) const;
  void check_ranks(const ProjectionFactors& unit) const;

  Table& table_;
};

}  // namespace moelora::packed
