#include "lib/compare/bits/origin.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

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

}  // namespace

MatrixPtr OriginFinder::own_ranks(const Pairing& p, int64_t expert, const MatrixPtr& whole) const {
  const Pairing::Ranks own = p.own_ranks(expert, whole->rank);
  return own.end > whole->rank || own.end == own.begin ? whole
                                                       : ranks_of(whole, own.begin, own.end);
}

MatrixPtr OriginFinder::source_of(const UnitKey& key, int64_t expert, Side side, DType as) {
  const auto at = lens_.find(key);
  return at ? lens_.source(*at, expert, side, as) : nullptr;
}

std::vector<std::vector<uint64_t>> OriginFinder::starts(size_t pairing, Side side, bool packed,
                                                        DType as) {
  const Pairing& p = lens_.pairings().all[pairing];
  const Lens::Starts all =
      packed ? lens_.packed_starts(pairing, side) : lens_.source_starts(pairing, side);
  std::vector<std::vector<uint64_t>> out(all.size());
  for (size_t e = 0; e < all.size(); ++e)
    if (all[e])
      out[e] =
          packed ? own_ranks(p, static_cast<int64_t>(e), all[e])->bits : cast_to(*all[e], as).bits;
  return out;
}

std::map<int64_t, int64_t> OriginFinder::holders(size_t pairing, Side side,
                                                 const std::vector<int64_t>& experts) {
  std::map<int64_t, int64_t> out;
  const Pairing& p = lens_.pairings().all[pairing];
  if (p.key.layer < 0 || p.packed == nullptr || p.source == nullptr || experts.empty()) return out;
  const MatrixPtr sample = lens_.packed(pairing, experts.front(), side);
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

bool OriginFinder::all_alike(size_t pairing, Side side, const std::vector<int64_t>& experts) {
  const MatrixPtr first = lens_.packed(pairing, experts.front(), side);
  if (experts.size() < 2 || !first) return false;
  const auto found = starts(pairing, side, true, first->dtype);
  return any_bit(found[static_cast<size_t>(experts.front())]) &&
         std::all_of(experts.begin(), experts.end(), [&](int64_t e) {
           return found[static_cast<size_t>(e)] == found[static_cast<size_t>(experts.front())];
         });
}

bool OriginFinder::holds(size_t pairing, int64_t expert, Side side, const UnitKey& other,
                         int64_t other_expert) {
  const MatrixPtr whole = lens_.packed(pairing, expert, side);
  if (!whole) return false;
  const MatrixPtr found = own_ranks(lens_.pairings().all[pairing], expert, whole);
  const MatrixPtr expected = source_of(other, other_expert, side, found->dtype);
  if (!expected) return false;
  if (*found == *expected) return true;
  // A block-diagonal B: the other's ranks too are where the other has them.
  const Pairing& p = lens_.pairings().all[*lens_.find(other)];
  const Pairing::Ranks ranks = p.own_ranks(other_expert, whole->rank);
  if (side == Side::A || whole->width != expected->width || ranks.end > whole->rank ||
      ranks.end - ranks.begin != expected->rank || expected->rank == whole->rank)
    return false;
  return is_all(*whole, [&](int64_t k, int64_t x) {
    const bool inside = k >= ranks.begin && k < ranks.end;
    return inside ? expected->at(k - ranks.begin, x) : uint64_t{0};
  });
}

Origin OriginFinder::find(size_t pairing, int64_t expert, Side side) {
  const Pairing& p = lens_.pairings().all[pairing];
  Question q{pairing, expert, side, &p, lens_.packed(pairing, expert, side), nullptr, nullptr};
  const MatrixPtr source = lens_.source(pairing, expert, side);
  if (!q.whole && !source) return {};
  if (!q.whole) return Origin::of(FaultKind::missing);
  if (!source) return Origin::of(FaultKind::not_in_source);
  q.expected = lens_.source(pairing, expert, side, q.whole->dtype);
  if ((bits_.of(pairing, expert, side) & kSame) != 0) return {};
  q.found = own_ranks(p, expert, q.whole);
  using Try = Answer (OriginFinder::*)(const Question&);
  constexpr std::array<Try, 10> kTries = {&OriginFinder::order,       &OriginFinder::zero,
                                          &OriginFinder::other_units, &OriginFinder::ranks,
                                          &OriginFinder::rounding,    &OriginFinder::overflow,
                                          &OriginFinder::scaled,      &OriginFinder::rows,
                                          &OriginFinder::exchanged,   &OriginFinder::elsewhere};
  for (const Try look : kTries)
    if (const Answer answer = (this->*look)(q)) return *answer;
  if (const Answer answer = few(q)) return *answer;
  if (q.found->width != q.expected->width)
    return Origin::of(FaultKind::width,
                      fmt::format("{} wide, expected {}", q.found->width, q.expected->width));
  return Origin::of(FaultKind::unknown);
}

}  // namespace moelora::packed
