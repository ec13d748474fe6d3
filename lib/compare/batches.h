#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <tuple>
#include <vector>

#include "lib/adapter/delta_pair.h"

namespace moelora {

// Factors of many places, read into memory some places at a time: factors of neighbouring experts
// lie among each other in a stacked file, so that each source byte is read once where it can be.

// Entries of a map by DeltaKey in the order of files: experts of one projection and layer together.
template <class Map>
std::vector<const typename Map::value_type*> in_reading_order(const Map& by_key) {
  std::vector<const typename Map::value_type*> out;
  for (const auto& entry : by_key) out.push_back(&entry);
  std::stable_sort(out.begin(), out.end(), [](const auto* x, const auto* y) {
    return std::tie(x->first.layer, x->first.module) < std::tie(y->first.layer, y->first.module);
  });
  return out;
}

// What is measured together; the tensors are kept by reference.
struct PlaceFactors {
  DeltaKey key;
  std::vector<const Tensor*> factors;
};

// Calls measure(i, values) for every place, on `threads` threads (0: all), with the values of its
// factors, row-major; they are gone when it returns. `places` in reading order. `read` (may be
// null) hears after each batch how many bytes it was. Throws Error where bytes cannot be read.
using MeasurePlace = std::function<void(size_t place, std::span<const std::byte* const> values)>;
void measure_in_batches(std::span<const PlaceFactors> places, int threads,
                        const MeasurePlace& measure,
                        const std::function<void(uint64_t bytes)>& read = nullptr);

}  // namespace moelora
