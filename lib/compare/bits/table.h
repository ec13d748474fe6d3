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
#include "lib/compare/bits/stored.h"
#include "lib/model/model_spec.h"

namespace moelora::packed {

// Where the elements of every factor of an adapter lie, whatever its layout. A factor of one expert
// is A(k, x), x an input, or B(k, x), x an output; k counts ranks. In every layout there is,
// element (e, k, x) of experts e lies at offset + e*e_step + k*k_step + x*x_step of one tensor: a
// layout is nothing but these three steps.

// Experts [first, first + count) of a factor in one tensor. A matrix that all experts share has
// e_step 0.
struct Slab {
  size_t tensor;
  int64_t offset, e_step, k_step, x_step;
  int64_t first, count, rank;
};

struct Factor {
  int64_t width = 0;        // extents of x
  std::vector<Slab> slabs;  // by first; experts in none have no factor

  const Slab* slab_of(int64_t expert) const;  // null: the expert has none
};

// One projection of the routed experts of a layer, or a dense module (which has one "expert").
struct UnitKey {
  int layer = -1;  // -1: dense
  Projection projection = Projection::down;
  std::string module;  // of a dense one, in the spelling of the base in memory
  friend auto operator<=>(const UnitKey&, const UnitKey&) = default;
};
std::string to_string(
    const UnitKey& key);  // "layer 3 gate_proj", "model.layers.0.self_attn.q_proj"

struct Unit {
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
  std::map<UnitKey, Unit> units;
  std::map<std::string, size_t> extras;  // whatever is no factor, by its name without the prefix
  int64_t experts = 0;
  // False where the order of fused gate and up rows is not known: they are units gate_up.
  bool gate_up_apart = true;
};

// How stacked pairs are to be read where the adapter's own markers do not say.
struct Reading {
  std::optional<bool> expert_major, swapped;
};

struct TableOptions {
  const ModelSpec* spec = nullptr;
  Reading reading;
};

// Throws Error where names and shapes make no sense, or may mean two things.
Table make_table(const TensorMap& tensors, const Json& config, const std::string& where,
                 const TableOptions& options);

}  // namespace moelora::packed
