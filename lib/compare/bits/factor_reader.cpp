#include "lib/compare/bits/factor_reader.h"

#include <algorithm>

#include "lib/compare/bits/rounding.h"

namespace moelora::packed {
namespace {

constexpr size_t kKeptMatrices = 32;

MatrixPtr matrix_of(const Part& part, Side side, int64_t width) {
  if (part.data == nullptr) return nullptr;
  auto out = std::make_shared<Matrix>();
  out->dtype = part.dtype;
  out->rank = part.rank;
  out->width = width;
  out->bits.reserve(static_cast<size_t>(part.rank * width));
  for (int64_t k = 0; k < part.rank; ++k)
    for (int64_t x = 0; x < width; ++x)
      out->bits.push_back(
          element(part.data, part.bytes(), side == Side::A ? k * width + x : x * part.rank + k));
  return out;
}

}  // namespace

double Matrix::value(int64_t k, int64_t x) const { return value_of(dtype, at(k, x)); }

bool Matrix::is_zero() const {
  return std::all_of(bits.begin(), bits.end(), [&](uint64_t b) {
    return is_float(dtype) ? value_of(dtype, b) == 0 : b == 0;
  });
}

Matrix cast_to(const Matrix& m, DType dtype) {
  Matrix out = m;
  if (m.dtype == dtype || !is_float(m.dtype) || !is_float(dtype)) return out;
  out.dtype = dtype;
  for (uint64_t& b : out.bits) b = bits_of(dtype, value_of(m.dtype, b));
  return out;
}

FactorReader::FactorReader(const Pairings& pairings)
    : pairings_(pairings), packed_(pairings.packed), source_(pairings.source) {
  for (size_t i = 0; i < pairings.all.size(); ++i) index_.emplace(pairings.all[i].key, i);
}

std::optional<size_t> FactorReader::find(const ProjectionKey& key) const {
  const auto found = index_.find(key);
  return found == index_.end() ? std::nullopt : std::optional(found->second);
}

MatrixPtr FactorReader::whole(Adapter& from, const Factor* factor, size_t pairing, int64_t expert,
                              Side side) {
  if (factor == nullptr || factor->block_of(expert) == nullptr) return nullptr;
  if (from.kept.size() >= kKeptMatrices) from.kept.clear();
  MatrixPtr& slot = from.kept[{pairing, expert, side}];
  if (!slot)
    slot = matrix_of(from.loader.load(factor, side, {expert, expert + 1, 0, factor->width})[0],
                     side, factor->width);
  return slot;
}

MatrixPtr FactorReader::packed(size_t pairing, int64_t expert, Side side) {
  return whole(packed_, pairings_.all[pairing].packed_side(side), pairing, expert, side);
}

MatrixPtr FactorReader::source(size_t pairing, int64_t expert, Side side) {
  return whole(source_, pairings_.all[pairing].source_side(side), pairing, expert, side);
}

MatrixPtr FactorReader::source(size_t pairing, int64_t expert, Side side, DType as) {
  const MatrixPtr raw = source(pairing, expert, side);
  if (!raw || raw->dtype == as) return raw;
  return std::make_shared<Matrix>(cast_to(*raw, as));
}

FactorReader::Starts FactorReader::starts(Adapter& from, const Factor* factor, Side side,
                                          int64_t e0, int64_t e1) {
  Starts out(static_cast<size_t>(e1 - e0));
  if (factor == nullptr || factor->blocks.empty()) return out;
  const int64_t width = std::min(kStart, factor->width);
  const auto parts = from.loader.load(factor, side, {e0, e1, 0, width});
  for (size_t i = 0; i < out.size(); ++i) out[i] = matrix_of(parts[i], side, width);
  return out;
}

FactorReader::Starts FactorReader::packed_starts(size_t pairing, Side side) {
  const Pairing& p = pairings_.all[pairing];
  return starts(packed_, p.packed_side(side), side, 0, p.experts());
}

FactorReader::Starts FactorReader::source_starts(size_t pairing, Side side) {
  const Pairing& p = pairings_.all[pairing];
  return starts(source_, p.source_side(side), side, 0, p.experts());
}

MatrixPtr FactorReader::source_start(size_t pairing, int64_t expert, Side side) {
  return starts(source_, pairings_.all[pairing].source_side(side), side, expert, expert + 1)[0];
}

}  // namespace moelora::packed
