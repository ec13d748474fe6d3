#include "lib/compare/bits/products.h"

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <map>
#include <memory>
#include <mutex>

#include "lib/base/parallel.h"
#include "lib/compare/bits/probes.h"

namespace moelora::packed {
namespace {

// A scale as an element of the field. Two that are rounded from one number are taken for equal.
Field as_field(const Scale& scale) {
  if (scale.rslora) return Field::of(scale.value());
  return Field::of(scale.alpha) * Field::of(scale.rank).inverse();
}

struct BothScales {
  Field packed, source;
};

BothScales scales_of(const Pairing& p, int64_t expert) {
  const Field one = Field::of(int64_t{1});
  if (p.packed == nullptr || p.source == nullptr) return {one, one};
  const Scale &packed = p.packed->scale(expert), &source = p.source->scale(expert);
  if (std::fabs(packed.value() - source.value()) <= 1e-12 * std::fabs(source.value()))
    return {one, one};
  if (!std::isfinite(packed.value()) || !std::isfinite(source.value())) return {one, {}};
  return {as_field(packed), as_field(source)};
}

// u^T B A x for every probe.
std::array<Field, kProbes> products(const ProbeSums& a, const ProbeSums& b) {
  std::array<Field, kProbes> out;
  for (size_t i = 0; i < std::min(a.of.size(), b.of.size()); ++i)
    out[i % kProbes] = out[i % kProbes] + a.of[i] * b.of[i];
  return out;
}

struct PairSums {
  std::array<ProbeSums, 2> packed, source;  // by side
};

class GroupProducts {
 public:
  GroupProducts(const Table& packed, const Table& source, const Pairings& pairings,
                const PassOptions& options)
      : packed_(packed), source_(source), pairings_(pairings), options_(options) {}

  // The equal ones of `pairs`, all of one group.
  std::vector<PairId> equal(size_t group, const std::vector<PairId>& pairs) {
    std::vector<PairSums> sums(pairs.size());
    for (const Side side : {Side::A, Side::B})
      for (const Window& w :
           windows_of(packed_, source_, pairings_, group, side, options_.window, options_.most()))
        add(w, pairs, sums);
    std::vector<PairId> out;
    for (size_t i = 0; i < pairs.size(); ++i) {
      if (is_equal(pairings_.all[pairs[i].pairing], pairs[i].expert, sums[i]))
        out.push_back(pairs[i]);
      for (const auto* sides : {&sums[i].packed, &sums[i].source})
        for (const ProbeSums& s : *sides) ++(s.by_doubles ? by_doubles : in_integers);
    }
    return out;
  }

  uint64_t bytes() const { return load_packed_.bytes_loaded() + load_source_.bytes_loaded(); }
  int64_t by_doubles = 0, in_integers = 0;

 private:
  void add(const Window& w, const std::vector<PairId>& pairs, std::vector<PairSums>& sums) {
    for (const size_t i : pairings_.groups[w.group]) {
      const Pairing& p = pairings_.all[i];
      const auto side = static_cast<size_t>(w.side);
      add(load_packed_, p.packed_side(w.side), w, i, pairs,
          [&](size_t pair) -> ProbeSums& { return sums[pair].packed[side]; });
      add(load_source_, p.source_side(w.side), w, i, pairs,
          [&](size_t pair) -> ProbeSums& { return sums[pair].source[side]; });
    }
  }

  template <class F>
  void add(Loader& loader, const Factor* factor, const Window& w, size_t pairing,
           const std::vector<PairId>& pairs, F&& sums_of) {
    if (factor == nullptr || factor->slabs.empty()) return;
    Box box = w.box;
    box.x1 = std::min(box.x1, factor->width);
    box.x0 = std::min(box.x0, box.x1);
    if (box.width() == 0) return;
    const auto parts = loader.load(*factor, w.side, box);
    for (size_t i = 0; i < pairs.size(); ++i) {
      const auto& [of, expert] = pairs[i];
      if (of != pairing || expert < box.e0 || expert >= box.e1) continue;
      const Part& part = parts[static_cast<size_t>(expert - box.e0)];
      if (part.data != nullptr) add_probes(part, w.side, box.width(), box.x0, sums_of(i));
    }
  }

  static bool is_equal(const Pairing& p, int64_t expert, const PairSums& sums) {
    for (const auto* sides : {&sums.packed, &sums.source})
      for (const ProbeSums& s : *sides)
        if (!s.finite) return false;
    const auto found = products(sums.packed[0], sums.packed[1]);
    const auto expected = products(sums.source[0], sums.source[1]);
    const BothScales scales = scales_of(p, expert);
    for (size_t i = 0; i < kProbes; ++i)
      if (!(found[i] * scales.packed == expected[i] * scales.source)) return false;
    return true;
  }

  const Table &packed_, &source_;
  const Pairings& pairings_;
  const PassOptions& options_;
  Loader load_packed_{packed_}, load_source_{source_};
};

}  // namespace

ProductPass compare_products(const Table& packed, const Table& source, const Pairings& pairings,
                             const std::set<PairId>& pairs, const PassOptions& options) {
  std::vector<size_t> group_of(pairings.all.size());
  for (size_t g = 0; g < pairings.groups.size(); ++g)
    for (const size_t i : pairings.groups[g]) group_of[i] = g;
  std::map<size_t, std::vector<PairId>> by_group;
  for (const PairId& pair : pairs) by_group[group_of[pair.pairing]].push_back(pair);
  const std::vector<std::pair<size_t, std::vector<PairId>>> todo(by_group.begin(), by_group.end());

  ProductPass out;
  std::mutex mutex;
  parallel_for(static_cast<int64_t>(todo.size()), options.threads, [&](int64_t item, int) {
    GroupProducts work(packed, source, pairings, options);
    const auto& [group, ids] = todo[static_cast<size_t>(item)];
    const std::vector<PairId> equal = work.equal(group, ids);
    const std::lock_guard lock(mutex);
    out.equal.insert(equal.begin(), equal.end());
    out.bytes += work.bytes();
    out.by_doubles += work.by_doubles;
    out.in_integers += work.in_integers;
  });
  return out;
}

}  // namespace moelora::packed
