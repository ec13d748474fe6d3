#include "lib/compare/bits/explain.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "lib/base/dotted_path.h"
#include "lib/compare/bits/rounding.h"

namespace moelora::packed {
namespace {

// Ranks [begin, end) of a matrix.
MatrixPtr ranks_of(const MatrixPtr& m, int64_t begin, int64_t end) {
  if (begin == 0 && end == m->rank) return m;
  auto out = std::make_shared<Matrix>();
  out->dtype = m->dtype;
  out->rank = end - begin;
  out->width = m->width;
  out->bits.assign(m->bits.begin() + begin * m->width, m->bits.begin() + end * m->width);
  return out;
}

bool any_bit(const std::vector<uint64_t>& bits) {
  return std::any_of(bits.begin(), bits.end(), [](uint64_t b) { return b != 0; });
}

Projection sibling_of(Projection p) {
  return p == Projection::gate ? Projection::up : Projection::gate;
}

bool is_half(const ProjectionKey& key) {
  return key.layer >= 0 && (key.projection == Projection::gate || key.projection == Projection::up);
}

// Experts side by side in one row: PEFT's stacked lora_B, or a swapped pair's lora_A.
bool in_columns(const Factor* factor) {
  return factor != nullptr && !factor->blocks.empty() && factor->blocks[0].count > 1 &&
         factor->blocks[0].e_step != 0 && factor->blocks[0].e_step < factor->blocks[0].x_step;
}

}  // namespace

MatrixPtr Explainer::own_ranks(const Pairing& p, int64_t expert, const MatrixPtr& whole) const {
  const Pairing::Ranks own = p.own_ranks(expert, whole->rank);
  return own.end > whole->rank || own.end == own.begin ? whole
                                                       : ranks_of(whole, own.begin, own.end);
}

MatrixPtr Explainer::source_of(const ProjectionKey& key, int64_t expert, Side side, DType as) {
  const auto at = reader_.find(key);
  return at ? reader_.source(*at, expert, side, as) : nullptr;
}

std::vector<std::vector<uint64_t>> Explainer::starts(size_t pairing, Side side, bool packed,
                                                     DType as) {
  const Pairing& p = reader_.pairings().all[pairing];
  const FactorReader::Starts all =
      packed ? reader_.packed_starts(pairing, side) : reader_.source_starts(pairing, side);
  std::vector<std::vector<uint64_t>> out(all.size());
  for (size_t e = 0; e < all.size(); ++e)
    if (all[e])
      out[e] =
          packed ? own_ranks(p, static_cast<int64_t>(e), all[e])->bits : cast_to(*all[e], as).bits;
  return out;
}

std::map<int64_t, int64_t> Explainer::holders(size_t pairing, Side side,
                                              const std::vector<int64_t>& experts) {
  std::map<int64_t, int64_t> out;
  const Pairing& p = reader_.pairings().all[pairing];
  if (p.key.layer < 0 || p.packed == nullptr || p.source == nullptr || experts.empty()) return out;
  const MatrixPtr sample = reader_.packed(pairing, experts.front(), side);
  if (!sample || p.packed_side(side)->width != p.source_side(side)->width) return out;
  const auto found = starts(pairing, side, true, sample->dtype);
  const auto expected = starts(pairing, side, false, sample->dtype);
  std::map<std::vector<uint64_t>, int64_t> owner;  // the first, where several are alike
  for (size_t e = 0; e < expected.size(); ++e)
    if (any_bit(expected[e])) owner.emplace(expected[e], static_cast<int64_t>(e));
  for (const int64_t e : experts) {
    const auto at = static_cast<size_t>(e);
    if (at >= found.size() || found[at] == (at < expected.size() ? expected[at] : found[at]))
      continue;
    const auto it = owner.find(found[at]);
    if (it != owner.end()) out.emplace(e, it->second);
  }
  return out;
}

bool Explainer::all_alike(size_t pairing, Side side, const std::vector<int64_t>& experts) {
  const MatrixPtr first = reader_.packed(pairing, experts.front(), side);
  if (experts.size() < 2 || !first) return false;
  const auto found = starts(pairing, side, true, first->dtype);
  return any_bit(found[static_cast<size_t>(experts.front())]) &&
         std::all_of(experts.begin(), experts.end(), [&](int64_t e) {
           return found[static_cast<size_t>(e)] == found[static_cast<size_t>(experts.front())];
         });
}

bool Explainer::holds(size_t pairing, int64_t expert, Side side, const ProjectionKey& other,
                      int64_t other_expert) {
  const MatrixPtr whole = reader_.packed(pairing, expert, side);
  if (!whole) return false;
  const MatrixPtr found = own_ranks(reader_.pairings().all[pairing], expert, whole);
  const MatrixPtr expected = source_of(other, other_expert, side, found->dtype);
  if (!expected) return false;
  if (*found == *expected) return true;
  // A block-diagonal B: the other's ranks too are where the other has them.
  const Pairing& p = reader_.pairings().all[*reader_.find(other)];
  const Pairing::Ranks ranks = p.own_ranks(other_expert, whole->rank);
  if (side == Side::A || whole->width != expected->width || ranks.end > whole->rank ||
      ranks.end - ranks.begin != expected->rank || expected->rank == whole->rank)
    return false;
  return is_all(*whole, [&](int64_t k, int64_t x) {
    const bool inside = k >= ranks.begin && k < ranks.end;
    return inside ? expected->at(k - ranks.begin, x) : uint64_t{0};
  });
}

Explanation Explainer::find(size_t pairing, int64_t expert, Side side) {
  const Pairing& p = reader_.pairings().all[pairing];
  Question q{pairing, expert, side, &p, reader_.packed(pairing, expert, side), nullptr, nullptr};
  const MatrixPtr source = reader_.source(pairing, expert, side);
  if (!q.whole && !source) return {};
  if (!q.whole) return Explanation::of(Mistake::missing);
  if (!source) return Explanation::of(Mistake::not_in_source);
  q.expected = reader_.source(pairing, expert, side, q.whole->dtype);
  if ((bits_.of(pairing, expert, side) & kSame) != 0) return {};
  q.found = own_ranks(p, expert, q.whole);
  using Try = Answer (Explainer::*)(const Question&);
  constexpr std::array<Try, 10> kTries = {
      &Explainer::order,    &Explainer::zero,     &Explainer::other_projections,
      &Explainer::ranks,    &Explainer::rounding, &Explainer::overflow,
      &Explainer::scaled,   &Explainer::rows,     &Explainer::exchanged,
      &Explainer::elsewhere};
  for (const Try look : kTries)
    if (const Answer answer = (this->*look)(q)) return *answer;
  if (const Answer answer = few(q)) return *answer;
  if (q.found->width != q.expected->width)
    return Explanation::of(Mistake::width,
                           fmt::format("{} wide, expected {}", q.found->width, q.expected->width));
  return Explanation::of(Mistake::unknown);
}

// ---- the ways in which one factor is explained ----

Explainer::Answer Explainer::zero(const Question& q) {
  if (!q.whole->is_zero() || q.expected->is_zero()) return std::nullopt;
  return Explanation::of(Mistake::left_zero);
}

// Of a stacked A: this half's ranks lie where the other's belong, and the other's here.
bool Explainer::blocks_exchanged(const Question& q, int64_t at) {
  if (q.side == Side::B || q.p->source_sibling == nullptr) return false;
  const ProjectionKey sibling{q.p->key.layer, sibling_of(q.p->key.projection), {}};
  const MatrixPtr other = source_of(sibling, q.expert, Side::A, q.whole->dtype);
  const Pairing::Ranks theirs = q.p->sibling_ranks(q.expert, q.whole->rank);
  return other && at == theirs.begin &&
         rank_offset(*q.whole, *other) == q.p->own_ranks(q.expert, q.whole->rank).begin;
}

Explainer::Answer Explainer::ranks(const Question& q) {
  const Pairing::Ranks own = q.p->own_ranks(q.expert, q.whole->rank);
  if (q.whole->rank < q.expected->rank || own.end > q.whole->rank)
    return Explanation::of(Mistake::rank,
                           fmt::format("rank {}, expected {}", q.whole->rank, q.expected->rank));
  if (q.whole->rank == q.expected->rank) return std::nullopt;
  const auto difference = bits_.differences.find({q.pairing, q.expert, q.side});
  if (difference != bits_.differences.end() && difference->second.padding)
    return Explanation::of(
        Mistake::padding,
        fmt::format("rank {} holds {:#x}", difference->second.k, difference->second.found));
  const int64_t at = rank_offset(*q.whole, *q.expected);
  if (at < 0 || at == own.begin) return std::nullopt;
  if (blocks_exchanged(q, at)) return Explanation{Explanation::Kind::sibling};
  return Explanation::of(Mistake::rank_slot,
                         fmt::format("begins at rank {}, expected {}", at, own.begin));
}

Explainer::Answer Explainer::rounding(const Question& q) {
  const MatrixPtr raw = reader_.source(q.pairing, q.expert, q.side);
  if (const auto mistake = bad_cast(*q.found, *raw))
    return Explanation::of(
        *mistake, fmt::format("from {} to {}", dtype_name(raw->dtype), dtype_name(q.found->dtype)));
  return std::nullopt;
}

// s*B became infinite where B is finite.
Explainer::Answer Explainer::overflow(const Question& q) {
  const double ratio = q.p->scale_ratio(q.expert);
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
  return Explanation::of(Mistake::overflow, fmt::format("times {}", ratio));
}

Explainer::Answer Explainer::scaled(const Question& q) {
  const auto factor = factor_of(*q.found, *q.expected);
  if (!factor) return std::nullopt;
  return Explanation{Explanation::Kind::scaled, Mistake::scale, *factor, {}};
}

Explainer::Answer Explainer::other_projections(const Question& q) {
  if (q.p->key.layer < 0) return std::nullopt;
  for (const Projection other :
       {sibling_of(q.p->key.projection), Projection::gate, Projection::up, Projection::down}) {
    if (other == q.p->key.projection) continue;
    if (!holds(q.pairing, q.expert, q.side, {q.p->key.layer, other, {}}, q.expert)) continue;
    const bool halves = is_half(q.p->key) && other != Projection::down;
    if (halves) return Explanation{Explanation::Kind::sibling};
    return Explanation::of(Mistake::other_projection,
                           fmt::format("holds {}", projection_name(other)));
  }
  return std::nullopt;
}

Explainer::Answer Explainer::rows(const Question& q) {
  if (is_reshaped(*q.found, *q.expected, q.side))
    return Explanation::of(q.side == Side::A ? Mistake::a_reshaped : Mistake::b_reshaped);
  if (const int64_t by = shift_of(*q.found, *q.expected, q.side))
    return Explanation::of(Mistake::shifted_data, fmt::format("by {} elements", by));
  if (q.side == Side::A || !is_half(q.p->key)) return std::nullopt;
  const int layer = q.p->key.layer;
  const DType type = q.found->dtype;
  const MatrixPtr gate = source_of({layer, Projection::gate, {}}, q.expert, Side::B, type);
  const MatrixPtr up = source_of({layer, Projection::up, {}}, q.expert, Side::B, type);
  if (!gate || !up) return std::nullopt;
  const int half = q.p->key.projection == Projection::gate ? 0 : 1;
  if (const auto mistake = interleaving(*q.found, *gate, *up, half))
    return Explanation::of(*mistake);
  if (is_joint_slice(*q.found, *gate, *up, half)) return Explanation::of(Mistake::tp_slice);
  return std::nullopt;
}

// The beginnings of all experts' factors as they must be in the packed adapter, ranks that hold
// nothing or the other half included.
std::vector<Matrix> Explainer::whole_starts(const Question& q) {
  const int64_t rank = q.whole->rank, width = std::min(FactorReader::kStart, q.whole->width);
  const auto place = [&](const FactorReader::Starts& from, int64_t e, const Pairing::Ranks& at,
                         Matrix& out) {
    const MatrixPtr& start = from[static_cast<size_t>(e)];
    if (!start || at.end > rank || start->rank != at.end - at.begin || start->width != width)
      return;
    const Matrix cast = cast_to(*start, q.whole->dtype);
    std::copy(cast.bits.begin(), cast.bits.end(), out.bits.begin() + at.begin * width);
  };
  const auto own = reader_.source_starts(q.pairing, q.side);
  const auto sibling = reader_.find({q.p->key.layer, sibling_of(q.p->key.projection), {}});
  const bool stacked = q.side == Side::A && q.p->source_sibling != nullptr && sibling;
  const auto theirs = stacked ? reader_.source_starts(*sibling, q.side) : FactorReader::Starts();
  std::vector<Matrix> out;
  for (int64_t e = 0; e < q.p->experts(); ++e) {
    out.push_back(
        {q.whole->dtype, rank, width, std::vector<uint64_t>(static_cast<size_t>(rank * width), 0)});
    if (stacked) place(theirs, e, q.p->sibling_ranks(e, rank), out.back());
    place(own, e, q.p->own_ranks(e, rank), out.back());
  }
  return out;
}

// Columns (of a swapped pair: rows) of a stacked factor read as e*r + k for k*E + e, or the
// reverse.
Explainer::Answer Explainer::order(const Question& q) {
  const int64_t experts = q.p->experts(), rank = q.whole->rank;
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
  const bool expert_major = matches(by_rank), rank_major = matches(by_expert);
  if (!expert_major && !rank_major) return std::nullopt;
  // Where zeros fit both, it is what another factor was.
  if (expert_major != rank_major)
    order_ = expert_major ? Mistake::b_order_expert_major : Mistake::b_order_rank_major;
  return Explanation::of(order_);
}

Explainer::Answer Explainer::exchanged(const Question& q) {
  const Side other_side = q.side == Side::A ? Side::B : Side::A;
  const auto is_other = [&](size_t pairing) {
    const MatrixPtr other = reader_.source(pairing, q.expert, other_side, q.found->dtype);
    return other && *other == *q.found;
  };
  if (is_other(q.pairing)) return Explanation::of(Mistake::roles_exchanged);
  if (q.p->key.layer < 0) return std::nullopt;
  for (const Projection p : {Projection::gate, Projection::up, Projection::down})
    if (const auto at = reader_.find({q.p->key.layer, p, {}}); at && is_other(*at))
      return Explanation::of(Mistake::roles_exchanged, fmt::format("with {}", projection_name(p)));
  return std::nullopt;
}

// The first inputs or outputs of another place's factor are those of the packed one.
bool Explainer::starts_like(const Question& q, size_t other) {
  const MatrixPtr start = reader_.source_start(other, q.expert, q.side);
  if (!start || start->rank != q.found->rank) return false;
  if (start->width != std::min(FactorReader::kStart, q.found->width)) return false;
  const Matrix cast = cast_to(*start, q.found->dtype);
  return is_all(cast, [&](int64_t k, int64_t x) { return q.found->at(k, x); });
}

Explainer::Answer Explainer::elsewhere(const Question& q) {
  const ProjectionKey& mine = q.p->key;
  for (size_t i = 0; i < reader_.pairings().all.size(); ++i) {
    const ProjectionKey& key = reader_.pairings().all[i].key;
    if (i == q.pairing || (key.layer < 0) != (mine.layer < 0)) continue;
    if (key.layer >= 0 && key.projection != mine.projection) continue;
    if (!starts_like(q, i) || !holds(q.pairing, q.expert, q.side, key, q.expert)) continue;
    if (key.layer >= 0)
      return Explanation::of(Mistake::other_layer, fmt::format("holds layer {}", key.layer));
    return Explanation::of(leaf_of(key.module) == leaf_of(mine.module) ? Mistake::other_layer
                                                                       : Mistake::other_projection,
                           "holds " + key.module);
  }
  return std::nullopt;
}

Explainer::Answer Explainer::few(const Question& q) {
  const auto at = bits_.differences.find({q.pairing, q.expert, q.side});
  if (at == bits_.differences.end() || at->second.count >= kCountedDifferences) return std::nullopt;
  const Difference& d = at->second;
  if (d.count * 10 > q.found->rank * q.found->width) return std::nullopt;
  const DType type = q.found->dtype;
  return Explanation::of(Mistake::few_elements,
                         fmt::format("{} of {} elements, first [{}, {}]: {} for {}", d.count,
                                     q.found->rank * q.found->width, q.side == Side::A ? d.k : d.x,
                                     q.side == Side::A ? d.x : d.k, value_of(type, d.found),
                                     value_of(type, d.expected)));
}

}  // namespace moelora::packed
