#include "lib/compare/spectrum.h"

#include "lib/numeric/singular_values.h"

namespace moelora {
namespace {

// The Gram matrices of rows [first, end) of stacked factors; the part of y in B is -y.
std::vector<double> values_of(const Gram& a, const Gram& b, const std::vector<double>& scales,
                              int64_t first, int64_t end) {
  const int64_t n = end - first;
  std::vector<double> in(static_cast<size_t>(n * n)), out(in.size());
  for (int64_t i = 0; i < n; ++i)
    for (int64_t j = 0; j < n; ++j) {
      in[static_cast<size_t>(i * n + j)] = a.at(first + i, first + j);
      out[static_cast<size_t>(i * n + j)] = scales[static_cast<size_t>(first + i)] *
                                            scales[static_cast<size_t>(first + j)] *
                                            b.at(first + i, first + j);
    }
  return singular_values(in, out, n);
}

}  // namespace

Spectrum spectrum_of(const DeltaKey& key, const Delta& x, const Delta& y) {
  Spectrum out{key, {}, {}, {}};
  const int64_t first = x.a.dim(0), end = first + y.a.dim(0);
  if (end > kMostSpectrumRank) return out;
  const auto xa = x.a.read(), xb = x.b.read(), ya = y.a.read(), yb = y.b.read();
  const FactorValues rows[] = {rows_of(x.a, xa.data()), rows_of(y.a, ya.data())};
  const FactorValues columns[] = {columns_of(x.b, xb.data()), columns_of(y.b, yb.data())};
  const Gram a = gram_of(rows), b = gram_of(columns);
  std::vector<double> scales(static_cast<size_t>(first), x.scale);
  scales.resize(static_cast<size_t>(end), -y.scale);
  out.a = values_of(a, b, scales, 0, first);
  out.b = values_of(a, b, scales, first, end);
  out.apart = values_of(a, b, scales, 0, end);
  return out;
}

}  // namespace moelora
