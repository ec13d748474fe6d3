#include "lib/numeric/packed/delta.h"

#include <cmath>
#include <limits>
#include <vector>

#include "lib/numeric/packed/probes.h"

namespace moelora::packed {
namespace {

constexpr int kVectors = 8;

using Block = std::vector<double>;  // [row][vector]

double sign(int vector, int64_t x) {
  return probe_entry(Side::A, vector % kProbes, x + vector * 7919) < 0 ? -1 : 1;
}

// scale B (A X), [out][vector].
Block applied(const PairValues& pair) {
  const Matrix &a = *pair.a, &b = *pair.b;
  Block z(static_cast<size_t>(a.rank * kVectors), 0.0),
      y(static_cast<size_t>(b.width * kVectors), 0.0);
  for (int64_t x = 0; x < a.width; ++x)
    for (int v = 0; v < kVectors; ++v) {
      const double s = sign(v, x);
      for (int64_t k = 0; k < a.rank; ++k)
        z[static_cast<size_t>(k * kVectors + v)] += s * a.value(k, x);
    }
  for (int64_t k = 0; k < b.rank; ++k)
    for (int64_t x = 0; x < b.width; ++x) {
      const double value = pair.scale * b.value(k, x);
      for (int v = 0; v < kVectors; ++v)
        y[static_cast<size_t>(x * kVectors + v)] +=
            value * z[static_cast<size_t>(k * kVectors + v)];
    }
  return y;
}

bool whole(const PairValues& pair) { return pair.a != nullptr && pair.b != nullptr; }

}  // namespace

std::optional<double> delta_error(const PairValues& packed, const PairValues& source) {
  if (!whole(packed) && !whole(source)) return 0;
  if (whole(packed) && whole(source) &&
      (packed.a->width != source.a->width || packed.b->width != source.b->width))
    return std::nullopt;
  const Block found = whole(packed) ? applied(packed) : Block();
  const Block expected = whole(source) ? applied(source) : Block();
  double difference = 0, norm = 0;
  for (size_t i = 0; i < std::max(found.size(), expected.size()); ++i) {
    const double f = found.empty() ? 0 : found[i], e = expected.empty() ? 0 : expected[i];
    difference += (f - e) * (f - e);
    norm += e * e;
  }
  if (difference == 0) return 0;
  if (!(norm > 0) || !std::isfinite(difference)) return std::numeric_limits<double>::infinity();
  return std::sqrt(difference / norm);
}

}  // namespace moelora::packed
