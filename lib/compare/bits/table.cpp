#include "lib/compare/bits/table.h"

#include <fmt/format.h>

#include <algorithm>
#include <memory>

#include "lib/base/error.h"
#include "lib/base/utf8.h"

namespace moelora::packed {
namespace {

constexpr int64_t kMostFactors = 1 << 23;

// The rows of one half of a fused gate_up factor.
StridedBlock half_of(StridedBlock block, int64_t width, GateUpOrder order, int half) {
  if (order == GateUpOrder::halves) {
    block.offset += half * (width / 2) * block.x_step;
  } else {
    block.offset += half * block.x_step;
    block.x_step *= 2;
  }
  return block;
}

}  // namespace

Stored stored_tensor(const std::string& name, const Tensor& tensor) {
  Stored out{name, tensor.dtype(), tensor.shape(), nullptr, 0};
  if (tensor.elements() == 0) return out;
  bool plain = tensor.pieces().size() == 1;
  int64_t step = 1;
  for (size_t a = tensor.axes().size(); plain && a-- > 0; step *= tensor.axes()[a]) {
    const Piece& piece = tensor.pieces()[0];
    plain = piece.count[a] == tensor.axes()[a] && (piece.stride[a] == step || piece.count[a] == 1);
  }
  if (plain) {
    out.source = tensor.pieces()[0].source;
    out.offset = tensor.pieces()[0].offset;
  } else {
    out.source = std::make_shared<MemorySource>(tensor.dtype(), tensor.read(), name);
  }
  return out;
}

const StridedBlock* Factor::block_of(int64_t expert) const {
  auto after =
      std::upper_bound(blocks.begin(), blocks.end(), expert,
                       [](int64_t e, const StridedBlock& block) { return e < block.first; });
  if (after == blocks.begin()) return nullptr;
  --after;
  return expert < after->first + after->count ? &*after : nullptr;
}

std::string to_string(const ProjectionKey& key) {
  if (key.layer < 0) return key.module;
  return fmt::format("layer {} {}", key.layer, projection_name(key.projection));
}

void refuse(const Stored& tensor, const std::string& what) {
  throw Error(printable(tensor.name) + " " + moelora::to_string(tensor.shape), what);
}

void TableBuilder::add(const FactorPlace& p) {
  const bool fused = p.projection == Projection::gate_up;
  if (fused && !p.order) table_.gate_up_apart = false;
  if (!fused || !p.order) return add_unit({p.layer, p.projection, p.module}, p, p.width, p.block);
  if (p.side == Side::B && p.width % 2 != 0)
    refuse(table_.tensors[p.block.tensor], "has an odd number of gate and up rows");
  for (int half = 0; half < 2; ++half) {
    const ProjectionKey key{p.layer, half == 0 ? Projection::gate : Projection::up, {}};
    if (p.side == Side::A)
      add_unit(key, p, p.width, p.block);
    else
      add_unit(key, p, p.width / 2, half_of(p.block, p.width, *p.order, half));
  }
}

void TableBuilder::add_unit(const ProjectionKey& key, const FactorPlace& placed, int64_t width,
                            const StridedBlock& block) {
  ProjectionFactors& unit = table_.projections[key];
  Factor& factor = unit.side(placed.side);
  if (!factor.blocks.empty() && factor.width != width)
    refuse(table_.tensors[block.tensor],
           fmt::format("has the width {}, other experts have {}", width, factor.width));
  factor.width = width;
  factor.blocks.push_back(block);
  add_scale(unit, block, placed.scale);
}

// One scale while all are equal; then one an expert, those not yet seen being as the first.
void TableBuilder::add_scale(ProjectionFactors& unit, const StridedBlock& block,
                             const Scale& scale) {
  if (unit.scales.empty()) unit.scales.push_back(scale);
  if (unit.scales.size() == 1 && unit.scales[0] == scale) return;
  const auto end = static_cast<size_t>(block.first + std::max<int64_t>(block.count, 1));
  if (unit.scales.size() < end) unit.scales.resize(end, Scale(unit.scales[0]));
  for (auto e = static_cast<size_t>(block.first); e < end; ++e) unit.scales[e] = scale;
}

void TableBuilder::finish(int64_t experts, const std::string& where) {
  table_.experts = experts;
  if (static_cast<int64_t>(table_.projections.size()) * experts > kMostFactors)
    throw Error(where, "has more factors of experts than any model");
  for (auto& [key, unit] : table_.projections) {
    unit.experts = key.layer < 0 ? 1 : experts;
    for (Factor& factor : unit.sides) finish(factor, unit.experts);
    if (unit.scales.size() > 1)
      unit.scales.resize(static_cast<size_t>(unit.experts), Scale(unit.scales[0]));
    check_ranks(unit);
  }
}

void TableBuilder::finish(Factor& factor, int64_t experts) const {
  for (StridedBlock& block : factor.blocks)
    if (block.count == kAllExperts) block.count = experts;
  std::sort(factor.blocks.begin(), factor.blocks.end(),
            [](const StridedBlock& a, const StridedBlock& b) { return a.first < b.first; });
  int64_t next = 0;
  for (const StridedBlock& block : factor.blocks) {
    const Stored& tensor = table_.tensors[block.tensor];
    if (block.first < next) refuse(tensor, "says what another tensor says already");
    next = block.first + block.count;
    if (next > experts) refuse(tensor, fmt::format("has more than {} experts", experts));
  }
}

void TableBuilder::check_ranks(const ProjectionFactors& unit) const {
  for (const StridedBlock& a : unit.side(Side::A).blocks)
    for (int64_t e = a.first; e < a.first + a.count; ++e) {
      const StridedBlock* b = unit.side(Side::B).block_of(e);
      if (b != nullptr && b->rank != a.rank)
        refuse(table_.tensors[a.tensor],
               fmt::format("has rank {}, its lora_B rank {}", a.rank, b->rank));
      if (b != nullptr && b->first + b->count >= a.first + a.count) break;  // the rest is alike
    }
}

}  // namespace moelora::packed
