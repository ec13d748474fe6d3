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
#include "lib/compare/bits/stacked_pairs.h"
#include "lib/io/json.h"
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

// Where the elements of every factor of an adapter lie, whatever its layout. A factor of one expert
// is A(k, x), x an input, or B(k, x), x an output; k counts ranks. In every layout there is,
// element (e, k, x) of experts e lies at offset + e*e_step + k*k_step + x*x_step of one tensor: a
// layout is just these three steps.

// Experts [first, first + count) of a factor in one tensor. A matrix that all experts share has
// e_step 0.
struct StridedBlock {
  size_t tensor;
  int64_t offset, e_step, k_step, x_step;
  int64_t first, count, rank;
  friend bool operator==(const StridedBlock&, const StridedBlock&) = default;
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
struct ProjectionFactors {
  std::array<Factor, 2> sides;  // A, B
  std::vector<Scale> scales;    // one per expert, or one for all
  int64_t experts = 1;

  const Factor& side(Side s) const { return sides[static_cast<size_t>(s)]; }
  Factor& side(Side s) { return sides[static_cast<size_t>(s)]; }
  const Scale& scale(int64_t expert) const {
    return scales[scales.size() == 1 ? 0 : static_cast<size_t>(expert)];
  }
};

// Of one side; null where there is no unit, or the expert has no factor there.
const StridedBlock* block_of(const ProjectionFactors* unit, Side side, int64_t expert);

struct Table {
  std::vector<Stored> tensors;
  std::map<ProjectionKey, ProjectionFactors> projections;
  std::map<std::string, size_t> extras;  // all that are not factors, by name without the prefix
  int64_t experts = 0;
  // False where the order of fused gate and up rows is not known: they are projections gate_up.
  bool gate_up_apart = true;
};

struct TableOptions {
  const ModelSpec* spec = nullptr;
  Reading reading;
};

// Throws Error where names and shapes make no sense, or may mean two things.
Table make_table(const TensorMap& tensors, const Json& config, const std::string& where,
                 const TableOptions& options);

}  // namespace moelora::packed
