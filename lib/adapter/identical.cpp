#include "lib/adapter/identical.h"

#include <atomic>

#include "lib/base/parallel.h"

namespace moelora {

bool identical(const Tensor& a, const Tensor& b) {
  if (a.dtype() != b.dtype() || a.shape() != b.shape()) return false;
  return a.same_recipe(b) || a.read() == b.read();
}

bool all_identical(std::span<const std::pair<Tensor, Tensor>> pairs, int threads) {
  if (pairs.empty()) return true;
  if (!identical(pairs.front().first, pairs.front().second)) return false;
  std::atomic<bool> same = true;
  parallel_for(static_cast<int64_t>(pairs.size()) - 1, threads, [&](int64_t i, int) {
    const auto& [a, b] = pairs[static_cast<size_t>(i) + 1];
    if (same && !identical(a, b)) same = false;
  });
  return same;
}

}  // namespace moelora
