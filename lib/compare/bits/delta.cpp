#include "lib/compare/bits/delta.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <vector>

namespace moelora::packed {
namespace {

using Row = std::vector<double>;

std::vector<Row> rows_of(const Matrix& m) {
  std::vector<Row> out(static_cast<size_t>(m.rank), Row(static_cast<size_t>(m.width)));
  for (int64_t k = 0; k < m.rank; ++k)
    for (int64_t x = 0; x < m.width; ++x)
      out[static_cast<size_t>(k)][static_cast<size_t>(x)] = m.value(k, x);
  return out;
}

struct Ranks {
  std::vector<Row> a, b;  // none: a delta of zero
  double scale = 0;

  explicit Ranks(const PairValues& pair) {
    if (pair.a == nullptr || pair.b == nullptr) return;
    a = rows_of(*pair.a);
    b = rows_of(*pair.b);
    scale = pair.scale;
  }
};

double dot(const Row& x, const Row& y) {
  double out = 0;
  for (size_t i = 0; i < x.size(); ++i) out += x[i] * y[i];
  return out;
}

// <scale B A, scale' B' A'>.
double inner(const Ranks& x, const Ranks& y) {
  double out = 0;
  for (size_t k = 0; k < std::min(x.a.size(), x.b.size()); ++k)
    for (size_t l = 0; l < std::min(y.a.size(), y.b.size()); ++l)
      out += dot(x.a[k], y.a[l]) * dot(x.b[k], y.b[l]);
  return x.scale * y.scale * out;
}

bool same_shape(const PairValues& x, const PairValues& y) {
  if (x.a == nullptr || x.b == nullptr || y.a == nullptr || y.b == nullptr) return true;
  return x.a->width == y.a->width && x.b->width == y.b->width;
}

}  // namespace

std::optional<double> delta_error(const PairValues& packed, const PairValues& source) {
  if (!same_shape(packed, source)) return std::nullopt;
  const Ranks found(packed), expected(source);
  const double norm = inner(expected, expected);
  const double difference = inner(found, found) + norm - 2 * inner(found, expected);
  if (!std::isfinite(difference)) return std::numeric_limits<double>::infinity();
  if (!(norm > 0)) return difference > 0 ? std::numeric_limits<double>::infinity() : 0.0;
  return std::sqrt(std::max(difference, 0.0) / norm);
}

}  // namespace moelora::packed
