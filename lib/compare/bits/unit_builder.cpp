#include "lib/compare/bits/unit_builder.h"

#include <fmt/format.h>

#include <algorithm>

#include "lib/base/error.h"
#include "lib/base/utf8.h"

namespace moelora::packed {
namespace {

constexpr int64_t kMostFactors = 1 << 23;

// The rows of one half of a fused gate_up factor.
Slab half_of(Slab slab, int64_t width, GateUpOrder order, int half) {
  if (order == GateUpOrder::halves) {
    slab.offset += half * (width / 2) * slab.x_step;
  } else {
    slab.offset += half * slab.x_step;
    slab.x_step *= 2;
  }
  return slab;
}

}  // namespace

void refuse(const Stored& tensor, const std::string& what) {
  throw Error(printable(tensor.name) + " " + moelora::to_string(tensor.shape), what);
}

void UnitBuilder::add(const FactorPlace& p) {
  const bool fused = p.projection == Projection::gate_up;
  if (fused && !p.order) table_.gate_up_apart = false;
  if (!fused || !p.order) return add_unit({p.layer, p.projection, p.module}, p, p.width, p.slab);
  if (p.side == Side::B && p.width % 2 != 0)
    refuse(table_.tensors[p.slab.tensor], "has an odd number of gate and up rows");
  for (int half = 0; half < 2; ++half) {
    const UnitKey key{p.layer, half == 0 ? Projection::gate : Projection::up, {}};
    if (p.side == Side::A)
      add_unit(key, p, p.width, p.slab);
    else
      add_unit(key, p, p.width / 2, half_of(p.slab, p.width, *p.order, half));
  }
}

void UnitBuilder::add_unit(const UnitKey& key, const FactorPlace& placed, int64_t width,
                           const Slab& slab) {
  Unit& unit = table_.units[key];
  Factor& factor = unit.side(placed.side);
  if (!factor.slabs.empty() && factor.width != width)
    refuse(table_.tensors[slab.tensor],
           fmt::format("has the width {}, other experts have {}", width, factor.width));
  factor.width = width;
  factor.slabs.push_back(slab);
  add_scale(unit, slab, placed.scale);
}

// One scale while all are equal; then one an expert, those not yet seen being as the first.
void UnitBuilder::add_scale(Unit& unit, const Slab& slab, const Scale& scale) {
  if (unit.scales.empty()) unit.scales.push_back(scale);
  if (unit.scales.size() == 1 && unit.scales[0] == scale) return;
  const auto end = static_cast<size_t>(slab.first + std::max<int64_t>(slab.count, 1));
  if (unit.scales.size() < end) unit.scales.resize(end, Scale(unit.scales[0]));
  for (auto e = static_cast<size_t>(slab.first); e < end; ++e) unit.scales[e] = scale;
}

void UnitBuilder::finish(int64_t experts, const std::string& where) {
  table_.experts = experts;
  if (static_cast<int64_t>(table_.units.size()) * experts > kMostFactors)
    throw Error(where, "has more factors of experts than any model");
  for (auto& [key, unit] : table_.units) {
    unit.experts = key.layer < 0 ? 1 : experts;
    for (Factor& factor : unit.sides) finish(factor, unit.experts);
    if (unit.scales.size() > 1)
      unit.scales.resize(static_cast<size_t>(unit.experts), Scale(unit.scales[0]));
    check_ranks(unit);
  }
}

void UnitBuilder::finish(Factor& factor, int64_t experts) const {
  for (Slab& slab : factor.slabs)
    if (slab.count == kAllExperts) slab.count = experts;
  std::sort(factor.slabs.begin(), factor.slabs.end(),
            [](const Slab& a, const Slab& b) { return a.first < b.first; });
  int64_t next = 0;
  for (const Slab& slab : factor.slabs) {
    const Stored& tensor = table_.tensors[slab.tensor];
    if (slab.first < next) refuse(tensor, "says what another tensor says already");
    next = slab.first + slab.count;
    if (next > experts) refuse(tensor, fmt::format("has more than {} experts", experts));
  }
}

void UnitBuilder::check_ranks(const Unit& unit) const {
  for (const Slab& a : unit.side(Side::A).slabs)
    for (int64_t e = a.first; e < a.first + a.count; ++e) {
      const Slab* b = unit.side(Side::B).slab_of(e);
      if (b != nullptr && b->rank != a.rank)
        refuse(table_.tensors[a.tensor],
               fmt::format("has rank {}, its lora_B rank {}", a.rank, b->rank));
      if (b != nullptr && b->first + b->count >= a.first + a.count) break;  // the rest is alike
    }
}

}  // namespace moelora::packed
