#include "lib/adapter/identical.h"

#include <algorithm>

namespace moelora {

bool identical(const Tensor& a, const Tensor& b) {
  if (a.dtype() != b.dtype() || a.shape() != b.shape()) return false;
  return a.same_recipe(b) || a.read() == b.read();
}

bool all_identical(std::span<const std::pair<Tensor, Tensor>> pairs) {
  return std::all_of(pairs.begin(), pairs.end(),
                     [](const auto& pair) { return identical(pair.first, pair.second); });
}

}  // namespace moelora
