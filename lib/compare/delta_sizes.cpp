#include "lib/compare/delta_sizes.h"

#include <algorithm>
#include <cmath>

#include "lib/base/progress_meter.h"
#include "lib/compare/batches.h"

namespace moelora {
namespace {

DeltaSize measured(const DeltaKey& key, const Delta& delta,
                   std::span<const std::byte* const> values) {
  const FactorValues rows[] = {rows_of(delta.a, values[0])};
  const FactorValues columns[] = {columns_of(delta.b, values[1])};
  const RankOneParts parts(rows, columns);
  const double squares = parts.all();
  DeltaSize out{key, delta.a.dim(0), 0, 0};
  // What is not finite must not pass for 0.
  out.norm = std::fabs(delta.scale) * std::sqrt(squares < 0 ? 0 : squares);
  out.effective_rank = effective_rank(squares, parts.fourth_powers(0, parts.size()));
  return out;
}

}  // namespace

std::vector<DeltaSize> delta_sizes(const Deltas& deltas, const DistanceOptions& options) {
  std::vector<PlaceFactors> places;
  std::vector<const Delta*> at;
  uint64_t bytes = 0;
  for (const auto* entry : in_reading_order(deltas)) {
    places.push_back({entry->first, {&entry->second.a, &entry->second.b}});
    at.push_back(&entry->second);
    bytes += entry->second.a.bytes() + entry->second.b.bytes();
  }
  std::vector<DeltaSize> out(places.size());
  ProgressMeter progress("measuring", bytes, options.job);
  measure_in_batches(
      places, options.threads,
      [&](size_t i, std::span<const std::byte* const> values) {
        out[i] = measured(places[i].key, *at[i], values);
      },
      [&](uint64_t read) { progress.add(read); });
  std::sort(out.begin(), out.end(),
            [](const DeltaSize& x, const DeltaSize& y) { return x.key < y.key; });
  return out;
}

}  // namespace moelora
