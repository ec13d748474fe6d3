#pragma once

#include <optional>
#include <string>

#include "lib/compare/bits/table.h"

namespace moelora::packed {

// Bounds on hostile indices and dims.
inline constexpr int64_t kMostExperts = 1 << 16;

// A slab of all experts, before their number is known.
inline constexpr int64_t kAllExperts = -1;

// What a tensor says of one side of one projection.
struct FactorPlace {
  int layer;  // -1: dense
  Projection projection;
  std::string module;  // of a dense one
  Side side;
  int64_t width;
  Slab slab;
  Scale scale;
  // Of fused gate and up rows; nullopt where it is not known.
  std::optional<GateUpOrder> order = {};
};

// Error at "TENSOR SHAPE".
[[noreturn]] void refuse(const Stored& tensor, const std::string& what);

// Fills the units of a table, tensor by tensor, and checks them together. Throws Error.
class UnitBuilder {
 public:
  explicit UnitBuilder(Table& table) : table_(table) {}

  // A fused factor becomes one of gate and one of up: both have its A, and each its rows of B.
  void add(const FactorPlace& placed);

  // To be called once, when the number of experts is known.
  void finish(int64_t experts, const std::string& where);

 private:
  void add_unit(const UnitKey& key, const FactorPlace& placed, int64_t width, const Slab& slab);
  void add_scale(Unit& unit, const Slab& slab, const Scale& scale);
  void finish(Factor& factor, int64_t experts) const;
  void check_ranks(const Unit& unit) const;

  Table& table_;
};

}  // namespace moelora::packed
