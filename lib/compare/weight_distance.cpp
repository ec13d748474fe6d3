#include "lib/compare/weight_distance.h"

#include <fmt/format.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "lib/base/progress.h"
#include "lib/compare/batches.h"

namespace moelora {
namespace {

double effective_rank(double squares, double fourths) {
  return squares <= 0 || fourths <= 0 ? 0 : squares * squares / fourths;
}

bool same_bytes(const Tensor& x, const std::byte* x_data, const Tensor& y,
                const std::byte* y_data) {
  return x.dtype() == y.dtype() && x.shape() == y.shape() &&
         (x.bytes() == 0 || std::memcmp(x_data, y_data, x.bytes()) == 0);
}

// `values`: A and B of x, A and B of y.
Distance measured(const DeltaKey& key, const Delta& x, const Delta& y,
                  std::span<const std::byte* const> values) {
  Distance out;
  out.key = key;
  out.identical = x.scale == y.scale && same_bytes(x.a, values[0], y.a, values[2]) &&
                  same_bytes(x.b, values[1], y.b, values[3]);
  std::vector<FactorValues> a{rows_of(x.a, values[0])}, b{columns_of(x.b, values[1])};
  if (!out.identical) {
    a.push_back(rows_of(y.a, values[2]));
    b.push_back(columns_of(y.b, values[3]));
  }
  const RankOneParts parts(a, b);
  const int64_t first = x.a.dim(0), end = parts.size();
  const ProductDistance d = distance_of(parts, first, x.scale, y.scale);
  const auto rank_of = [&](int64_t from, int64_t to) {
    return effective_rank(parts.sum(from, to, from, to), parts.fourth_powers(from, to));
  };
  out.norm_a = d.x;
  out.effective_rank_a = rank_of(0, first);
  if (out.identical) {
    out.norm_b = out.norm_a;
    out.effective_rank_b = out.effective_rank_a;
    out.inner = out.norm_a * out.norm_a;
    return out;
  }
  out.norm_b = d.y;
  out.effective_rank_b = rank_of(first, end);
  out.inner = d.inner;
  out.apart = d.apart;
  return out;
}

bool same_shape(const Delta& a, const Delta& b) {
  return a.a.dim(1) == b.a.dim(1) && a.b.dim(0) == b.b.dim(0);
}

std::string shapes_text(const DeltaKey& key, const Delta& a, const Delta& b) {
  return fmt::format("{}: {} -> {} against {} -> {}", to_string(key), a.a.dim(1), a.b.dim(0),
                     b.a.dim(1), b.b.dim(0));
}

uint64_t bytes_of(const Deltas& deltas) {
  uint64_t sum = 0;
  for (const auto& entry : deltas) sum += entry.second.a.bytes() + entry.second.b.bytes();
  return sum;
}

}  // namespace

double Distance::relative() const {
  return ProductDistance{norm_a, norm_b, inner, apart}.relative();
}

double Distance::cosine() const {
  if (norm_a == 0 && norm_b == 0) return 1;
  return norm_a == 0 || norm_b == 0 ? 0 : inner / (norm_a * norm_b);
}

WeightDiff weight_distances(const Deltas& a, const Deltas& b, const DistanceOptions& options) {
  WeightDiff out;
  std::vector<PlaceFactors> places;
  std::vector<std::pair<const Delta*, const Delta*>> deltas;
  for (const auto* entry : in_reading_order(a)) {
    const auto& [key, delta] = *entry;
    const auto other = b.find(key);
    if (other == b.end()) {
      out.only_a.push_back(key);
    } else if (!same_shape(delta, other->second)) {
      out.shapes_differ.push_back(shapes_text(key, delta, other->second));
    } else {
      places.push_back({key, {&delta.a, &delta.b, &other->second.a, &other->second.b}});
      deltas.emplace_back(&delta, &other->second);
    }
  }
  for (const auto& entry : b)
    if (a.count(entry.first) == 0) out.only_b.push_back(entry.first);
  out.pairs.resize(places.size());
  ProgressMeter progress("comparing", bytes_of(a) + bytes_of(b), options.job);
  measure_in_batches(
      places, options.threads,
      [&](size_t i, std::span<const std::byte* const> values) {
        out.pairs[i] = measured(places[i].key, *deltas[i].first, *deltas[i].second, values);
      },
      [&](uint64_t bytes) { progress.add(bytes); });
  std::sort(out.pairs.begin(), out.pairs.end(),
            [](const Distance& x, const Distance& y) { return x.key < y.key; });
  return out;
}

}  // namespace moelora
