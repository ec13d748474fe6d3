#include "lib/compare/bits/products.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <mutex>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

#include "lib/base/low_rank.h"
#include "lib/base/parallel.h"
#include "lib/compare/bits/rounding.h"

namespace moelora::packed {
namespace {

constexpr uint64_t kGramBytes = 64 << 20;  // of the pairs that a thread measures together
// Ranks that are the source's but for some values: below this, relative.
constexpr double kNear = 1e-6;

FactorValues values_of(const Part& part, Side side, int64_t width) {
  return {part.dtype, part.data, part.rank, width, side == Side::B};
}

// The packed ranks are the source's in another order: chosen by a first part of lora_A, and held to
// by every other part.
class RankOrder {
 public:
  void add(Side side, const Part& packed, const Part& source, int64_t width) {
    if (broken_) return;
    if (from_.empty())
      choose(packed, source, width);
    else if (side == Side::A)
      compare_rows(packed, source, width);
    else
      compare_columns(packed, source, width);
  }
  bool holds() const { return !broken_ && !from_.empty(); }

 private:
  static bool same_row(const Part& packed, int64_t k, const Part& source, int64_t l,
                       int64_t width) {
    const int64_t bytes = width * packed.bytes();
    return std::memcmp(packed.data + k * bytes, source.data + l * bytes,
                       static_cast<size_t>(bytes)) == 0;
  }

  void choose(const Part& packed, const Part& source, int64_t width) {
    std::vector<int64_t> left(static_cast<size_t>(source.rank));
    std::iota(left.begin(), left.end(), 0);
    for (int64_t k = 0; k < packed.rank; ++k) {
      const auto at = std::find_if(left.begin(), left.end(), [&](int64_t l) {
        return same_row(packed, k, source, l, width);
      });
      broken_ = broken_ || at == left.end();
      if (broken_) return;
      from_.push_back(*at);
      left.erase(at);
    }
  }

  void compare_rows(const Part& packed, const Part& source, int64_t width) {
    for (size_t k = 0; k < from_.size() && !broken_; ++k)
      broken_ = !same_row(packed, static_cast<int64_t>(k), source, from_[k], width);
  }

  void compare_columns(const Part& packed, const Part& source, int64_t width) {
    const int bytes = packed.bytes();
    for (int64_t x = 0; x < width && !broken_; ++x)
      for (size_t k = 0; k < from_.size(); ++k)
        broken_ =
            broken_ || element(packed.data, bytes, x * packed.rank + static_cast<int64_t>(k)) !=
                           element(source.data, bytes, x * source.rank + from_[k]);
  }

  std::vector<int64_t> from_;
  bool broken_ = false;
};

class GroupProducts {
 public:
  GroupProducts(const Pairings& pairings, const BitPass& bits, const PassOptions& options)
      : pairings_(pairings), bits_(bits), options_(options), reader_(pairings) {}

  // The equal ones of `pairs`, all of one group.
  std::vector<PairId> equal(size_t group, const std::vector<PairId>& pairs) {
    std::vector<PairId> out, likely, rest;
    for (const PairId& pair : pairs)
      if (is_comparable(pair)) (may_be_reordered(pair) ? likely : rest).push_back(pair);
    find_reordered(group, likely, out, rest);
    for (size_t at = 0; at < rest.size();) {
      std::vector<PairId> some;
      for (uint64_t bytes = 0; at < rest.size() && (some.empty() || bytes < kGramBytes); ++at) {
        const auto rows = static_cast<uint64_t>(rank(rest[at], true) + rank(rest[at], false));
        bytes += 2 * rows * rows * sizeof(double);
        some.push_back(rest[at]);
      }
      measure(group, some, out);
    }
    return out;
  }

 private:
  const ProjectionFactors* factors(const PairId& pair, bool packed) const {
    const Pairing& p = pairings_.all[pair.pairing];
    return packed ? p.packed : p.source;
  }

  const StridedBlock* block(const PairId& pair, Side side, bool packed) const {
    return block_of(factors(pair, packed), side, pair.expert);
  }

  int64_t rank(const PairId& pair, bool packed) const {
    const StridedBlock* a = block(pair, Side::A, packed);
    return a == nullptr ? 0 : a->rank;
  }

  double scale(const PairId& pair, bool packed) const {
    return rank(pair, packed) == 0 ? 0 : factors(pair, packed)->scale(pair.expert).value();
  }

  DType dtype(const StridedBlock& block, bool packed) const {
    return (packed ? pairings_.packed : pairings_.source).tensors[block.tensor].dtype;
  }

  // Both sides, or neither, of each; floats; the same shape.
  bool is_comparable(const PairId& pair) const {
    for (const bool packed : {false, true}) {
      const StridedBlock *a = block(pair, Side::A, packed), *b = block(pair, Side::B, packed);
      if ((a == nullptr) != (b == nullptr)) return false;
      if (a != nullptr && !(is_float(dtype(*a, packed)) && is_float(dtype(*b, packed))))
        return false;
    }
    const Pairing& p = pairings_.all[pair.pairing];
    return p.same_width(Side::A) && p.same_width(Side::B);
  }

  bool may_be_reordered(const PairId& pair) const {
    if (rank(pair, true) != rank(pair, false)) return false;
    for (const Side side : {Side::A, Side::B})
      if (dtype(*block(pair, side, true), true) != dtype(*block(pair, side, false), false))
        return false;
    return scale(pair, true) == scale(pair, false);
  }

  // Calls visit(i, side, packed part, source part, width) for all parts of all pairs.
  template <class F>
  void for_parts(size_t group, const std::vector<PairId>& pairs, F&& visit) {
    for (const Window& w : windows_of(pairings_, group, options_))
      for (const size_t pairing : pairings_.groups[group]) visit_window(w, pairing, pairs, visit);
  }

  template <class F>
  void visit_window(const Window& w, size_t pairing, const std::vector<PairId>& pairs, F&& visit) {
    const auto inside = [&](const PairId& pair) {
      return pair.pairing == pairing && pair.expert >= w.box.e0 && pair.expert < w.box.e1;
    };
    if (std::none_of(pairs.begin(), pairs.end(), inside)) return;
    const Box box = reader_.load(pairings_.all[pairing], w);
    if (box.width() == 0) return;
    for (size_t i = 0; i < pairs.size(); ++i)
      if (inside(pairs[i]))
        visit(i, w.side, reader_.packed(pairs[i].expert), reader_.source(pairs[i].expert),
              box.width());
  }

  void find_reordered(size_t group, const std::vector<PairId>& pairs, std::vector<PairId>& equal,
                      std::vector<PairId>& rest) {
    std::vector<RankOrder> orders(pairs.size());
    for_parts(group, pairs,
              [&](size_t i, Side side, const Part& packed, const Part& source, int64_t width) {
                orders[i].add(side, packed, source, width);
              });
    for (size_t i = 0; i < pairs.size(); ++i)
      (orders[i].holds() ? equal : rest).push_back(pairs[i]);
  }

  void measure(size_t group, const std::vector<PairId>& pairs, std::vector<PairId>& equal) {
    std::vector<std::array<Gram, 2>> grams;
    for (const PairId& pair : pairs) {
      const int64_t rows = rank(pair, false) + rank(pair, true);
      grams.push_back({Gram(rows), Gram(rows)});
    }
    for_parts(group, pairs,
              [&](size_t i, Side side, const Part& packed, const Part& source, int64_t width) {
                std::vector<FactorValues> both;
                for (const Part* part : {&source, &packed})
                  if (part->data != nullptr) both.push_back(values_of(*part, side, width));
                grams[i][static_cast<size_t>(side)].add(both);
              });
    for (size_t i = 0; i < pairs.size(); ++i) {
      if (is_damaged(pairs[i], grams[i])) continue;
      const RankOneParts parts(std::move(grams[i][0]), std::move(grams[i][1]));
      const ProductDistance d =
          distance_of(parts, rank(pairs[i], false), scale(pairs[i], false), scale(pairs[i], true));
      if (d.apart == 0) equal.push_back(pairs[i]);
    }
  }

  // The source's ranks where they belong, but for some values.
  bool is_damaged(const PairId& pair, const std::array<Gram, 2>& grams) const {
    const int64_t r = rank(pair, false);
    if (r == 0 || rank(pair, true) == 0) return false;
    const Pairing& p = pairings_.all[pair.pairing];
    const Pairing::Ranks own = p.own_ranks(pair.expert, rank(pair, true));
    if (own.end - own.begin != r || own.end > rank(pair, true)) return false;
    const double fold = p.scale_ratio(pair.expert);
    bool any = false;
    for (const Side side : {Side::A, Side::B}) {
      any = any || has_other_values(pair, side);
      const double factor = side == Side::B ? fold : 1;
      const Gram& g = grams[static_cast<size_t>(side)];
      for (int64_t k = 0; k < r; ++k) {
        const int64_t at = r + own.begin + k;
        const double meant = factor * factor * g.at(k, k);
        if (!(g.at(at, at) + meant - 2 * factor * g.at(k, at) <= kNear * kNear * meant))
          return false;
      }
    }
    return any;
  }

  bool has_other_values(const PairId& pair, Side side) const {
    const uint8_t match = bits_.of(pair.pairing, pair.expert, side);
    if ((match & (kSame | (side == Side::B ? kAnyFold : 0))) != 0) return false;
    const auto at = bits_.differences.find({pair.pairing, pair.expert, side});
    return at != bits_.differences.end() && !at->second.padding;
  }

  const Pairings& pairings_;
  const BitPass& bits_;
  const PassOptions& options_;
  WindowReader reader_;
};

// ---- one pair in memory ----

std::vector<double> doubles_of(const Matrix& m) {
  std::vector<double> out;
  out.reserve(m.bits.size());
  for (int64_t k = 0; k < m.rank; ++k)
    for (int64_t x = 0; x < m.width; ++x) out.push_back(m.value(k, x));
  return out;
}

bool same_shape(const PairValues& x, const PairValues& y) {
  if (x.a == nullptr || x.b == nullptr || y.a == nullptr || y.b == nullptr) return true;
  return x.a->width == y.a->width && x.b->width == y.b->width;
}

// Both factors, of the ranks that both have.
struct HeldPair {
  explicit HeldPair(const PairValues& pair) : scale(pair.scale) {
    if (pair.a == nullptr || pair.b == nullptr) return;
    rank = std::min(pair.a->rank, pair.b->rank);
    a = doubles_of(*pair.a);
    b = doubles_of(*pair.b);
    a_width = pair.a->width;
    b_width = pair.b->width;
  }
  FactorValues factor(const std::vector<double>& values, int64_t width) const {
    return {DType::F64, reinterpret_cast<const std::byte*>(values.data()), rank, width, false};
  }

  std::vector<double> a, b;  // [k][x]
  int64_t rank = 0, a_width = 0, b_width = 0;
  double scale;
};

}  // namespace

std::set<PairId> compare_products(const Pairings& pairings, const BitPass& bits,
                                  const std::set<PairId>& pairs, const PassOptions& options) {
  std::vector<size_t> group_of(pairings.all.size());
  for (size_t g = 0; g < pairings.groups.size(); ++g)
    for (const size_t i : pairings.groups[g]) group_of[i] = g;
  std::map<size_t, std::vector<PairId>> by_group;
  for (const PairId& pair : pairs) by_group[group_of[pair.pairing]].push_back(pair);
  const std::vector<std::pair<size_t, std::vector<PairId>>> todo(by_group.begin(), by_group.end());

  std::set<PairId> out;
  std::mutex mutex;
  parallel_for(static_cast<int64_t>(todo.size()), options.threads, [&](int64_t item, int) {
    const auto& [group, ids] = todo[static_cast<size_t>(item)];
    const std::vector<PairId> equal = GroupProducts(pairings, bits, options).equal(group, ids);
    const std::lock_guard lock(mutex);
    out.insert(equal.begin(), equal.end());
  });
  return out;
}

std::optional<double> delta_error(const PairValues& packed, const PairValues& source) {
  if (!same_shape(packed, source)) return std::nullopt;
  const HeldPair found(packed), expected(source);
  std::vector<FactorValues> a, b;
  for (const HeldPair* pair : {&expected, &found}) {
    if (pair->rank == 0) continue;
    a.push_back(pair->factor(pair->a, pair->a_width));
    b.push_back(pair->factor(pair->b, pair->b_width));
  }
  if (a.empty()) return 0;
  const ProductDistance d =
      distance_of(RankOneParts(a, b), expected.rank, expected.scale, found.scale);
  return std::isfinite(d.apart) ? d.relative() : std::numeric_limits<double>::infinity();
}

}  // namespace moelora::packed
