// The ways in which OriginFinder explains one factor.

#include <fmt/format.h>

#include <algorithm>

#include "lib/compare/bits/origin.h"
#include "lib/compare/bits/rounding.h"

namespace moelora::packed {
namespace {

Projection sibling_of(Projection p) {
  return p == Projection::gate ? Projection::up : Projection::gate;
}

bool is_half(const UnitKey& key) {
  return key.layer >= 0 && (key.projection == Projection::gate || key.projection == Projection::up);
}

// Experts side by side in one row: PEFT's stacked lora_B, or a swapped pair's lora_A.
bool in_columns(const Factor* factor) {
  return factor != nullptr && !factor->slabs.empty() && factor->slabs[0].count > 1 &&
         factor->slabs[0].e_step != 0 && factor->slabs[0].e_step < factor->slabs[0].x_step;
}

std::string leaf(const std::string& module) { return module.substr(module.rfind('.') + 1); }

}  // namespace

OriginFinder::Answer OriginFinder::zero(const Question& q) {
  if (!q.whole->is_zero() || q.expected->is_zero()) return std::nullopt;
  return Origin::of(FaultKind::left_zero);
}

// Of a stacked A: this half's ranks lie where the other's belong, and the other's here.
bool OriginFinder::blocks_exchanged(const Question& q, int64_t at) {
  if (q.side == Side::B || q.p->source_sibling == nullptr) return false;
  const UnitKey sibling{q.p->key.layer, sibling_of(q.p->key.projection), {}};
  const MatrixPtr other = source_of(sibling, q.expert, Side::A, q.whole->dtype);
  const Pairing::Ranks theirs = q.p->sibling_ranks(q.expert, q.whole->rank);
  return other && at == theirs.begin &&
         rank_offset(*q.whole, *other) == q.p->own_ranks(q.expert, q.whole->rank).begin;
}

OriginFinder::Answer OriginFinder::ranks(const Question& q) {
  const Pairing::Ranks own = q.p->own_ranks(q.expert, q.whole->rank);
  if (q.whole->rank < q.expected->rank || own.end > q.whole->rank)
    return Origin::of(FaultKind::rank,
                      fmt::format("rank {}, expected {}", q.whole->rank, q.expected->rank));
  if (q.whole->rank == q.expected->rank) return std::nullopt;
  const auto difference = bits_.differences.find({q.pairing, q.expert, q.side});
  if (difference != bits_.differences.end() && difference->second.padding)
    return Origin::of(FaultKind::padding, fmt::format("rank {} holds {:#x}", difference->second.k,
                                                      difference->second.found));
  const int64_t at = rank_offset(*q.whole, *q.expected);
  if (at < 0 || at == own.begin) return std::nullopt;
  if (blocks_exchanged(q, at)) return Origin{Origin::Kind::sibling};
  return Origin::of(FaultKind::rank_slot,
                    fmt::format("begins at rank {}, expected {}", at, own.begin));
}

OriginFinder::Answer OriginFinder::rounding(const Question& q) {
  const MatrixPtr raw = lens_.source(q.pairing, q.expert, q.side);
  if (const auto kind = bad_cast(*q.found, *raw))
    return Origin::of(
        *kind, fmt::format("from {} to {}", dtype_name(raw->dtype), dtype_name(q.found->dtype)));
  return std::nullopt;
}

// s*B became infinite where B is finite.
OriginFinder::Answer OriginFinder::overflow(const Question& q) {
  const double ratio = scale_ratio(*q.p, q.expert);
  const Matrix &f = *q.found, &e = *q.expected;
  if (ratio == 1 || q.side == Side::A || f.width != e.width || !is_float(f.dtype))
    return std::nullopt;
  bool any = false;
  for (size_t i = 0; i < f.bits.size(); ++i) {
    const uint64_t want = folded(f.dtype, e.bits[i], ratio, FoldRounding::torch);
    if (f.bits[i] != want) return std::nullopt;
    any = any || (is_infinite(f.dtype, want) && !is_infinite(f.dtype, e.bits[i]));
  }
  if (!any) return std::nullopt;
  return Origin::of(FaultKind::overflow, fmt::format("times {}", ratio));
}

OriginFinder::Answer OriginFinder::scaled(const Question& q) {
  const auto factor = factor_of(*q.found, *q.expected);
  if (!factor) return std::nullopt;
  return Origin{Origin::Kind::scaled, FaultKind::scale_other, 0, *factor, {}};
}

OriginFinder::Answer OriginFinder::other_units(const Question& q) {
  if (q.p->key.layer < 0) return std::nullopt;
  for (const Projection other :
       {sibling_of(q.p->key.projection), Projection::gate, Projection::up, Projection::down}) {
    if (other == q.p->key.projection) continue;
    if (!holds(q.pairing, q.expert, q.side, {q.p->key.layer, other, {}}, q.expert)) continue;
    const bool halves = is_half(q.p->key) && other != Projection::down;
    if (halves) return Origin{Origin::Kind::sibling};
    return Origin::of(FaultKind::other_projection, fmt::format("holds {}", projection_name(other)));
  }
  return std::nullopt;
}

OriginFinder::Answer OriginFinder::rows(const Question& q) {
  if (is_reshaped(*q.found, *q.expected, q.side))
    return Origin::of(q.side == Side::A ? FaultKind::a_reshaped : FaultKind::b_reshaped);
  if (const int64_t by = shift_of(*q.found, *q.expected, q.side))
    return Origin::of(FaultKind::shifted_data, fmt::format("by {} elements", by));
  if (q.side == Side::A || !is_half(q.p->key)) return std::nullopt;
  const int layer = q.p->key.layer;
  const DType type = q.found->dtype;
  const MatrixPtr gate = source_of({layer, Projection::gate, {}}, q.expert, Side::B, type);
  const MatrixPtr up = source_of({layer, Projection::up, {}}, q.expert, Side::B, type);
  if (!gate || !up) return std::nullopt;
  const int half = q.p->key.projection == Projection::gate ? 0 : 1;
  if (is_interleaved(*q.found, *gate, *up, half)) return Origin::of(FaultKind::interleaving);
  if (is_joint_slice(*q.found, *gate, *up, half)) return Origin::of(FaultKind::tp_slice);
  return std::nullopt;
}

// The beginnings of all experts' factors as they must be in the packed adapter, ranks that hold
// nothing or the other half included.
std::vector<Matrix> OriginFinder::whole_starts(const Question& q) {
  const int64_t rank = q.whole->rank, width = std::min(Lens::kStart, q.whole->width);
  const auto place = [&](const Lens::Starts& from, int64_t e, const Pairing::Ranks& at,
                         Matrix& out) {
    const MatrixPtr& start = from[static_cast<size_t>(e)];
    if (!start || at.end > rank || start->rank != at.end - at.begin || start->width != width)
      return;
    const Matrix cast = cast_to(*start, q.whole->dtype);
    std::copy(cast.bits.begin(), cast.bits.end(), out.bits.begin() + at.begin * width);
  };
  const auto own = lens_.source_starts(q.pairing, q.side);
  const auto sibling = lens_.find({q.p->key.layer, sibling_of(q.p->key.projection), {}});
  const bool stacked = q.side == Side::A && q.p->source_sibling != nullptr && sibling;
  const auto theirs = stacked ? lens_.source_starts(*sibling, q.side) : Lens::Starts();
  std::vector<Matrix> out;
  for (int64_t e = 0; e < experts_of(*q.p); ++e) {
    out.push_back(
        {q.whole->dtype, rank, width, std::vector<uint64_t>(static_cast<size_t>(rank * width), 0)});
    if (stacked) place(theirs, e, q.p->sibling_ranks(e, rank), out.back());
    place(own, e, q.p->own_ranks(e, rank), out.back());
  }
  return out;
}

// Columns (of a swapped pair: rows) of a stacked factor read as e*r + k for k*E + e, or the
// reverse.
OriginFinder::Answer OriginFinder::order(const Question& q) {
  const int64_t experts = experts_of(*q.p), rank = q.whole->rank;
  if (experts < 2 || rank < 2 ||
      !(in_columns(q.p->packed_side(q.side)) || in_columns(q.p->source_side(q.side))))
    return std::nullopt;
  const std::vector<Matrix> all = whole_starts(q);
  const auto matches = [&](auto&& place) {
    for (int64_t k = 0; k < rank; ++k) {
      const auto [e, from] = place(k);
      const Matrix& m = all[static_cast<size_t>(e)];
      for (int64_t x = 0; x < m.width; ++x)
        if (m.at(from, x) != q.whole->at(k, x)) return false;
    }
    return true;
  };
  const auto by_rank = [&](int64_t k) {
    const int64_t c = k * experts + q.expert;
    return std::pair(c / rank, c % rank);
  };
  const auto by_expert = [&](int64_t k) {
    const int64_t c = q.expert * rank + k;
    return std::pair(c % experts, c / experts);
  };
  if (!matches(by_rank) && !matches(by_expert)) return std::nullopt;
  return Origin::of(FaultKind::b_order);
}

OriginFinder::Answer OriginFinder::exchanged(const Question& q) {
  const Side other_side = q.side == Side::A ? Side::B : Side::A;
  const auto is_other = [&](size_t pairing) {
    const MatrixPtr other = lens_.source(pairing, q.expert, other_side, q.found->dtype);
    return other && *other == *q.found;
  };
  if (is_other(q.pairing)) return Origin::of(FaultKind::sides_exchanged);
  if (q.p->key.layer < 0) return std::nullopt;
  for (const Projection p : {Projection::gate, Projection::up, Projection::down})
    if (const auto at = lens_.find({q.p->key.layer, p, {}}); at && is_other(*at))
      return Origin::of(FaultKind::sides_exchanged, fmt::format("with {}", projection_name(p)));
  return std::nullopt;
}

// The first inputs or outputs of another place's factor are those of the packed one.
bool OriginFinder::starts_like(const Question& q, size_t other) {
  const MatrixPtr start = lens_.source_start(other, q.expert, q.side);
  if (!start || start->rank != q.found->rank) return false;
  if (start->width != std::min(Lens::kStart, q.found->width)) return false;
  const Matrix cast = cast_to(*start, q.found->dtype);
  return is_all(cast, [&](int64_t k, int64_t x) { return q.found->at(k, x); });
}

OriginFinder::Answer OriginFinder::elsewhere(const Question& q) {
  const UnitKey& mine = q.p->key;
  for (size_t i = 0; i < lens_.pairings().all.size(); ++i) {
    const UnitKey& key = lens_.pairings().all[i].key;
    if (i == q.pairing || (key.layer < 0) != (mine.layer < 0)) continue;
    if (key.layer >= 0 && key.projection != mine.projection) continue;
    if (!starts_like(q, i) || !holds(q.pairing, q.expert, q.side, key, q.expert)) continue;
    if (key.layer >= 0)
      return Origin::of(FaultKind::other_layer, fmt::format("holds layer {}", key.layer));
    return Origin::of(leaf(key.module) == leaf(mine.module) ? FaultKind::other_layer
                                                            : FaultKind::other_projection,
                      "holds " + key.module);
  }
  return std::nullopt;
}

OriginFinder::Answer OriginFinder::few(const Question& q) {
  const auto at = bits_.differences.find({q.pairing, q.expert, q.side});
  if (at == bits_.differences.end() || at->second.count >= kCountedDifferences) return std::nullopt;
  const Difference& d = at->second;
  if (d.count * 10 > q.found->rank * q.found->width) return std::nullopt;
  const DType type = q.found->dtype;
  return Origin::of(FaultKind::few_elements,
                    fmt::format("{} of {} elements, first [{}, {}]: {} for {}", d.count,
                                q.found->rank * q.found->width, q.side == Side::A ? d.k : d.x,
                                q.side == Side::A ? d.x : d.k, value_of(type, d.found),
                                value_of(type, d.expected)));
}

}  // namespace moelora::packed
