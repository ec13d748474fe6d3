#include "lib/engine/fit/delta_norm.h"

#include <cmath>
#include <numeric>

#include "lib/base/cast.h"
#include "lib/base/parallel.h"

namespace moelora {
namespace {

// [r, r]: inner products of the rows of a [r, n] matrix.
std::vector<double> gram(const Tensor& rows) {
  const std::vector<double> m = read_double(rows);
  const auto r = static_cast<size_t>(rows.dim(0)), n = static_cast<size_t>(rows.dim(1));
  std::vector<double> out(r * r);
  for (size_t i = 0; i < r; ++i)
    for (size_t j = 0; j <= i; ++j) {
      const double* a = m.data() + i * n;
      const double* b = m.data() + j * n;
      out[i * r + j] = out[j * r + i] = std::inner_product(a, a + n, b, 0.0);
    }
  return out;
}

}  // namespace

double delta_norm(const Delta& delta) {
  const std::vector<double> a = gram(delta.a), b = gram(delta.b.transpose(0, 1));
  const double trace = std::inner_product(a.begin(), a.end(), b.begin(), 0.0);
  return std::fabs(delta.scale) * std::sqrt(std::max(trace, 0.0));
}

double delta_norm(const std::vector<Delta>& deltas, int threads) {
  std::vector<double> norms(deltas.size());
  parallel_for(static_cast<int64_t>(deltas.size()), threads, [&](int64_t i, int) {
    norms[static_cast<size_t>(i)] = delta_norm(deltas[static_cast<size_t>(i)]);
  });
  return std::sqrt(std::inner_product(norms.begin(), norms.end(), norms.begin(), 0.0));
}

std::vector<Delta> expert_deltas(const Adapter& adapter) {
  std::vector<Delta> out;
  for (const auto& entry : adapter.experts)
    for (int64_t e = 0; e < adapter.expert_count; ++e)
      if (entry.second.a.has(e))
        out.push_back(
            {entry.second.a.at(e), entry.second.b.at(e), entry.second.scaling_of(e).value()});
  return out;
}

}  // namespace moelora
