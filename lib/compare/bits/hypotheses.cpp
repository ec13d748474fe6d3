#include "lib/compare/bits/hypotheses.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "lib/compare/bits/rounding.h"

namespace moelora::packed {
namespace {

bool same_shape(const Matrix& a, const Matrix& b) {
  return a.rank == b.rank && a.width == b.width && a.dtype == b.dtype;
}

// Element i in the order of the file: A as [k][x], B as [x][k].
uint64_t in_order(const Matrix& m, Side side, int64_t i) {
  return side == Side::A ? m.at(i / m.width, i % m.width) : m.at(i % m.rank, i / m.rank);
}

// Row q of [gate; up].
uint64_t joint(const Matrix& gate, const Matrix& up, int64_t k, int64_t q) {
  return q < gate.width ? gate.at(k, q) : up.at(k, q - gate.width);
}

template <class F>
bool is_joint(const Matrix& found, const Matrix& gate, const Matrix& up, int half, F&& row) {
  if (!same_shape(found, gate) || !same_shape(found, up)) return false;
  return is_all(
      found, [&](int64_t k, int64_t x) { return joint(gate, up, k, row(half * found.width + x)); });
}

bool near(double a, double b) { return std::fabs(a - b) <= 2e-3 * std::fabs(b); }

double relative_step(DType dtype) {
  return dtype == DType::BF16 ? 0x1p-7 : dtype == DType::F16 ? 0x1p-10 : 0x1p-22;
}

bool is_subnormal(DType dtype, double value) {
  const double least = dtype == DType::F16 ? 0x1p-14 : 0x1p-126;
  return value != 0 && std::fabs(value) < least;
}

// The element that cutting off the bits below gives.
uint64_t truncated(DType dtype, double value) {
  const uint64_t nearest = bits_of(dtype, value);
  const bool beyond = std::fabs(value_of(dtype, nearest)) > std::fabs(value);
  return beyond ? nearest - 1 : nearest;
}

// Position i holds expert order[i] when experts are sorted as text.
std::vector<int64_t> text_order(int64_t count) {
  std::vector<int64_t> out;
  for (int64_t e = 0; e < count; ++e) out.push_back(e);
  std::sort(out.begin(), out.end(),
            [](int64_t a, int64_t b) { return std::to_string(a) < std::to_string(b); });
  return out;
}

template <class F>
bool all_hold(const std::vector<ExpertAt>& experts, F&& which) {
  return std::all_of(experts.begin(), experts.end(),
                     [&](const ExpertAt& p) { return p.holds == which(p.at); });
}

}  // namespace

bool is_reshaped(const Matrix& found, const Matrix& expected, Side side) {
  if (!same_shape(found, expected) || found.rank == 1 || found.width == 1) return false;
  const int64_t r = found.rank, w = found.width;
  return is_all(found, [&](int64_t k, int64_t x) {
    const int64_t i = side == Side::A ? k * w + x : x * r + k;  // in the order of the file
    return side == Side::A ? expected.at(i % r, i / r) : expected.at(i / w, i % w);
  });
}

std::optional<Mistake> interleaving(const Matrix& found, const Matrix& gate, const Matrix& up,
                                    int half) {
  const int64_t n = found.width;
  const auto left = [n](int64_t q) { return q / 2 + (q % 2) * n; };
  const auto twice = [n](int64_t q) { return q < n ? 2 * q : 2 * (q - n) + 1; };
  if (is_joint(found, gate, up, half, left)) return Mistake::gate_up_interleaved;
  if (is_joint(found, gate, up, half, twice)) return Mistake::gate_up_halves;
  return std::nullopt;
}

bool is_joint_slice(const Matrix& found, const Matrix& gate, const Matrix& up, int half) {
  const int64_t n = found.width;
  for (const int64_t tp : {2, 4, 8, 16}) {
    if (n % tp != 0) continue;
    const int64_t part = n / tp;
    // Shards of [gate part; up part] laid one after another, and the reverse.
    const auto laid = [=](int64_t q) {
      return (q % (2 * part)) / part * n + q / (2 * part) * part + q % part;
    };
    const auto cut = [=](int64_t q) { return (q % n) / part * 2 * part + q / n * part + q % part; };
    if (is_joint(found, gate, up, half, laid) || is_joint(found, gate, up, half, cut)) return true;
  }
  return false;
}

int64_t shift_of(const Matrix& found, const Matrix& expected, Side side) {
  constexpr int64_t kFurthest = 64;
  if (!same_shape(found, expected)) return 0;
  const int64_t count = found.rank * found.width;
  for (int64_t distance = 1; distance <= std::min(kFurthest, count / 2); ++distance)
    for (const int64_t by : {distance, -distance}) {
      int64_t at = std::max<int64_t>(0, -by);
      const int64_t end = std::min(count, count - by);
      while (at < end && in_order(found, side, at) == in_order(expected, side, at + by)) ++at;
      if (at == end) return by;
    }
  return 0;
}

std::optional<double> factor_of(const Matrix& found, const Matrix& expected) {
  if (!same_shape(found, expected) || !is_float(found.dtype)) return std::nullopt;
  double both = 0, norm = 0, largest = 0;
  for (int64_t k = 0; k < found.rank; ++k)
    for (int64_t x = 0; x < found.width; ++x) {
      const double f = found.value(k, x), e = expected.value(k, x);
      both += f * e;
      norm += e * e;
      largest = std::max(largest, std::fabs(e));
    }
  if (!(norm > 0) || !std::isfinite(both)) return std::nullopt;
  const double c = both / norm, step = 2 * relative_step(found.dtype);
  if (c == 0) return std::nullopt;
  for (int64_t k = 0; k < found.rank; ++k)
    for (int64_t x = 0; x < found.width; ++x) {
      const double want = c * expected.value(k, x);
      const double most = step * std::fabs(want) + 1e-30 * largest;
      if (!(std::fabs(found.value(k, x) - want) <= most)) return std::nullopt;
    }
  return c;
}

std::optional<Mistake> bad_cast(const Matrix& found, const Matrix& source) {
  if (found.rank != source.rank || found.width != source.width) return std::nullopt;
  if (!is_float(found.dtype) || !is_float(source.dtype)) return std::nullopt;
  bool any = false, truncation = true, overflow = true, flush = true,
       same_bits =
           found.dtype != source.dtype && dtype_bits(found.dtype) == dtype_bits(source.dtype);
  for (size_t i = 0; i < found.bits.size(); ++i) {
    const double value = value_of(source.dtype, source.bits[i]);
    const uint64_t f = found.bits[i], want = bits_of(found.dtype, value);
    same_bits = same_bits && f == source.bits[i];
    if (f == want) continue;
    any = true;
    truncation = truncation && f == truncated(found.dtype, value);
    overflow = overflow && std::isinf(value_of(found.dtype, f)) && std::isfinite(value);
    flush = flush && value_of(found.dtype, f) == 0 && is_subnormal(found.dtype, value);
  }
  if (same_bits) return Mistake::dtype_bits;
  if (!any) return std::nullopt;
  if (flush) return Mistake::flushed;
  if (overflow) return Mistake::overflow;
  if (truncation) return Mistake::truncated;
  return std::nullopt;
}

int64_t rank_offset(const Matrix& found, const Matrix& expected) {
  if (found.width != expected.width || found.dtype != expected.dtype) return -1;
  for (int64_t at = 0; at + expected.rank <= found.rank; ++at)
    if (is_all(expected, [&](int64_t k, int64_t x) { return found.at(at + k, x); })) return at;
  return -1;
}

Mistake order_of(const std::vector<ExpertAt>& experts, int64_t count, bool outer_side) {
  const ExpertAt first = experts.front();
  if (experts.size() == 2 && experts[1].holds == first.at && experts[1].at == first.holds)
    return Mistake::experts_exchanged;
  if (all_hold(experts, [&](int64_t) { return first.holds; }) && (experts.size() > 1 || count == 2))
    return outer_side ? Mistake::one_for_all : Mistake::wrong_side_shared;
  const int64_t by = (first.holds - first.at + count) % count;
  if (all_hold(experts, [&](int64_t e) { return (e + by) % count; }))
    return Mistake::experts_rotated;
  const std::vector<int64_t> order = text_order(count);
  std::vector<int64_t> place(order.size());
  for (size_t i = 0; i < order.size(); ++i)
    place[static_cast<size_t>(order[i])] = static_cast<int64_t>(i);
  const auto looked_up = [](const std::vector<int64_t>& in) {
    return [&in](int64_t e) { return in[static_cast<size_t>(e)]; };
  };
  if (all_hold(experts, looked_up(order)) || all_hold(experts, looked_up(place)))
    return Mistake::experts_as_strings;
  return Mistake::expert_permutation;
}

Mistake scale_fault(double ratio, double scale, int64_t rank, int64_t packed_rank) {
  const auto r = static_cast<double>(rank), padded = static_cast<double>(packed_rank);
  if (scale != 1 && near(ratio * scale, 1)) return Mistake::scale_missing;
  if (scale != 1 && near(ratio, scale)) return Mistake::scale_twice;
  if (rank != packed_rank && (near(ratio, r / padded) || near(ratio, std::sqrt(r / padded))))
    return Mistake::scale_of_padded_rank;
  for (const double root : {std::sqrt(r), std::sqrt(padded)})
    if (root != 1 && (near(ratio, root) || near(ratio, 1 / root))) return Mistake::scale_rslora;
  return Mistake::scale;
}

}  // namespace moelora::packed
