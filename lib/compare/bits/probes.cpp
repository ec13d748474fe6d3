#include "lib/compare/bits/probes.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <memory>

#include "lib/compare/bits/rounding.h"

namespace moelora::packed {
namespace {

constexpr int64_t kChunk = 1024;   // x for which entries are kept together
constexpr int64_t kFewTerms = 16;  // of which a sum in double is not worth its while

uint64_t mixed(uint64_t x) {  // splitmix64
  x += 0x9E3779B97F4A7C15U;
  x = (x ^ (x >> 30U)) * 0xBF58476D1CE4E5B9U;
  x = (x ^ (x >> 27U)) * 0x94D049BB133111EBU;
  return x ^ (x >> 31U);
}

// Entries of all probes for a chunk of x.
struct Entries {
  std::array<std::array<double, kChunk>, kProbes> of;

  Entries(Side side, int64_t x0) {
    for (int p = 0; p < kProbes; ++p)
      for (int64_t i = 0; i < kChunk; ++i)
        of[static_cast<size_t>(p)][static_cast<size_t>(i)] =
            static_cast<double>(probe_entry(side, p, x0 + i));
  }
};

// The first chunks are asked for again and again; what lies beyond is made anew.
const Entries& entries(Side side, int64_t chunk) {
  constexpr int64_t kKept = 32;
  thread_local std::array<std::array<std::unique_ptr<Entries>, kKept + 1>, 2> known;
  auto& slot = known[static_cast<size_t>(side)][static_cast<size_t>(std::min(chunk, kKept))];
  if (!slot || chunk >= kKept) slot = std::make_unique<Entries>(side, chunk * kChunk);
  return *slot;
}

using EntryRows = std::array<const double*, kProbes>;

// Calls f(first x in the part, entries of that x on, count) for pieces of at most `most`.
template <class F>
void for_pieces(Side side, int64_t x0, int64_t width, int64_t most, F&& f) {
  for (int64_t x = 0; x < width;) {
    const int64_t in_chunk = (x0 + x) % kChunk;
    const int64_t count = std::min({kChunk - in_chunk, width - x, most});
    const Entries& from = entries(side, (x0 + x) / kChunk);
    EntryRows rows;
    for (size_t p = 0; p < kProbes; ++p) rows[p] = from.of[p].data() + in_chunk;
    f(x, rows, count);
    x += count;
  }
}

void add(ProbeSums& sums, int64_t k, int probe, Field term) {
  Field& sum = sums.of[static_cast<size_t>(k * kProbes + probe)];
  sum = sum + term;
}

// ---- in double -------------------------------------------------------------------------------

void add_exact(const Part& a, int64_t width, const EntryRows& rows, int64_t x, int64_t count,
               ProbeSums& sums) {
  std::array<double, kChunk> row;
  for (int64_t k = 0; k < a.rank; ++k) {
    to_doubles(a.dtype, a.data + (k * width + x) * a.bytes(), count, row.data());
    std::array<double, kProbes> dots = {};
    add_dots(row.data(), rows.data(), count, dots.data());
    for (int p = 0; p < kProbes; ++p) add(sums, k, p, Field::of(dots[static_cast<size_t>(p)]));
  }
}

// Room for the elements of some x as doubles, and for sums by rank.
struct RowRoom {
  explicit RowRoom(int64_t rank)
      : at_once(std::max<int64_t>(1, 4 * kChunk / rank)),
        rows(static_cast<size_t>(at_once * rank)),
        sums(static_cast<size_t>(kProbes * rank)) {
    for (int p = 0; p < kProbes; ++p) of_probe[static_cast<size_t>(p)] = sums.data() + p * rank;
  }
  int64_t at_once;
  std::vector<double> rows, sums;
  std::array<double*, kProbes> of_probe;
};

void add_exact(const Part& b, RowRoom& room, const EntryRows& rows, int64_t x, int64_t count,
               ProbeSums& sums) {
  std::fill(room.sums.begin(), room.sums.end(), 0.0);
  for (int64_t i = 0; i < count; i += room.at_once) {
    const int64_t n = std::min(room.at_once, count - i);
    to_doubles(b.dtype, b.data + (x + i) * b.rank * b.bytes(), n * b.rank, room.rows.data());
    EntryRows from = rows;
    for (const double*& row : from) row += i;
    add_rows(room.rows.data(), from.data(), n, b.rank, room.of_probe.data());
  }
  for (int64_t k = 0; k < b.rank; ++k)
    for (int p = 0; p < kProbes; ++p)
      add(sums, k, p, Field::of(room.of_probe[static_cast<size_t>(p)][k]));
}

void add_in_double(const Part& part, Side side, int64_t width, int64_t x0, int64_t terms,
                   ProbeSums& sums) {
  RowRoom room(part.rank);
  for_pieces(side, x0, width, terms, [&](int64_t x, const EntryRows& rows, int64_t count) {
    if (side == Side::A)
      add_exact(part, width, rows, x, count, sums);
    else
      add_exact(part, room, rows, x, count, sums);
  });
}

// ---- in integers -----------------------------------------------------------------------------

int fraction_bits(DType dtype) {
  return dtype == DType::BF16 ? 7 : dtype == DType::F16 ? 10 : dtype == DType::F32 ? 23 : 52;
}

int smallest_exponent(DType dtype) {
  return dtype == DType::F16 ? -14 : dtype == DType::F64 ? -1022 : -126;
}

// Sums of the significands of elements with one exponent times their entries: at most 64 bits a
// term, so that as many as fit into memory do not overflow.
class ExponentSums {
 public:
  explicit ExponentSums(DType dtype)
      : bytes_(dtype_bytes(dtype)),
        fraction_(fraction_bits(dtype)),
        last_bit_(smallest_exponent(dtype) - fraction_),
        sums_(size_t{kProbes} << (8 * bytes_ - 1 - fraction_)) {}

  void add(const std::byte* at, const EntryRows& entries, int64_t index) {
    const uint64_t bits = element(at, bytes_, 0);
    const uint64_t magnitude = bits & ((uint64_t{1} << (8 * bytes_ - 1)) - 1);
    const uint64_t hidden = uint64_t{1} << fraction_, exponent = magnitude >> fraction_;
    const uint64_t fraction = magnitude & (hidden - 1);
    const auto significand = static_cast<int64_t>(exponent == 0 ? fraction : fraction | hidden);
    const int64_t value = bits == magnitude ? significand : -significand;
    for (size_t p = 0; p < kProbes; ++p)
      sums_[exponent * kProbes + p] += int128{value} * static_cast<int64_t>(entries[p][index]);
  }

  // What they add up to; zero afterwards.
  Field take(int probe) {
    Field out;
    for (size_t i = static_cast<size_t>(probe); i < sums_.size(); i += kProbes) {
      if (sums_[i] == 0) continue;
      const int exponent = std::max(static_cast<int>(i / kProbes), 1) - 1 + last_bit_;
      out = out + Field::of(sums_[i]) * Field::power_of_two(exponent);
      sums_[i] = 0;
    }
    return out;
  }

 private:
  int bytes_, fraction_, last_bit_;
  std::vector<int128> sums_;  // [exponent * kProbes + probe]
};

void add_in_integers(const Part& part, Side side, int64_t width, int64_t x0, ProbeSums& sums) {
  ExponentSums all(part.dtype);
  const int64_t by_k = (side == Side::A ? width : 1) * part.bytes();
  const int64_t by_x = (side == Side::A ? 1 : part.rank) * part.bytes();
  for_pieces(side, x0, width, kChunk, [&](int64_t x, const EntryRows& rows, int64_t count) {
    for (int64_t k = 0; k < part.rank; ++k) {
      for (int64_t i = 0; i < count; ++i) all.add(part.data + k * by_k + (x + i) * by_x, rows, i);
      for (int p = 0; p < kProbes; ++p) add(sums, k, p, all.take(p));
    }
  });
}

}  // namespace

int64_t probe_entry(Side side, int probe, int64_t index) {
  const auto vector = static_cast<uint64_t>(side == Side::A ? probe : kProbes + probe);
  const uint64_t bits = mixed(static_cast<uint64_t>(index) * 2 * kProbes + vector);
  return 2 * static_cast<int64_t>(bits >> (64U - kEntryBits)) - ((1 << kEntryBits) - 1);
}

int64_t exact_terms(DType dtype, double smallest, double largest) {
  const int last_bit =
      std::max(std::ilogb(smallest), smallest_exponent(dtype)) - fraction_bits(dtype);
  const int room = 53 - (std::ilogb(largest) + 1 + kEntryBits - last_bit);
  return room < 0 ? 0 : int64_t{1} << std::min(room, 40);
}

void add_probes(const Part& part, Side side, int64_t width, int64_t x0, ProbeSums& sums) {
  sums.of.resize(static_cast<size_t>(part.rank * kProbes));
  if (!is_float(part.dtype)) sums.finite = false;
  if (!sums.finite) return;
  const Magnitudes m = magnitudes(part.bytes(), part.data, part.rank * width);
  if (m.largest == 0) return;
  const double largest = value_of(part.dtype, m.largest);
  if (!std::isfinite(largest)) {
    sums.finite = false;
    return;
  }
  const int64_t terms = exact_terms(part.dtype, value_of(part.dtype, m.smallest), largest);
  if (terms >= std::min(kFewTerms, width)) return add_in_double(part, side, width, x0, terms, sums);
  sums.by_doubles = false;
  add_in_integers(part, side, width, x0, sums);
}

}  // namespace moelora::packed
