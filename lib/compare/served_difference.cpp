#include "lib/compare/served_difference.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <map>
#include <tuple>

#include "lib/base/cast.h"
#include "lib/base/low_rank.h"
#include "lib/base/scale.h"
#include "lib/compare/batches.h"
#include "lib/compare/meant_deltas.h"

namespace moelora {
namespace {

constexpr double kSums = 1e-6;  // relative: sums in double, and what they cancel

// ---- factors in memory ----

struct HeldMatrix {
  DType dtype = DType::F32;
  const std::byte* data = nullptr;  // row-major
  int64_t rows = 0, columns = 0;

  // REQUIRES a matrix.
  static HeldMatrix of(const Tensor& tensor, const std::byte* data) {
    return {tensor.dtype(), data, tensor.dim(0), tensor.dim(1)};
  }
};

// Rows first, first + step, .. and columns [column, column + columns) of a matrix, zeros beyond it;
// copied where they are not the whole.
class Window {
 public:
  explicit Window(const HeldMatrix& whole) : held_(whole) {}
  Window(const HeldMatrix& whole, int64_t first, int64_t step, int64_t rows, int64_t column,
         int64_t columns)
      : held_(whole) {
    if (first == 0 && step == 1 && column == 0 && rows == whole.rows && columns == whole.columns)
      return;
    const auto width = static_cast<size_t>(dtype_bytes(whole.dtype));
    const auto line = static_cast<size_t>(columns) * width;
    copy_.resize(static_cast<size_t>(rows) * line);
    const int64_t taken = std::clamp<int64_t>(whole.columns - column, 0, columns);
    for (int64_t i = 0; i < rows && first + i * step < whole.rows && taken > 0; ++i) {
      const auto from = static_cast<size_t>((first + i * step) * whole.columns + column);
      std::memcpy(copy_.data() + static_cast<size_t>(i) * line, whole.data + from * width,
                  static_cast<size_t>(taken) * width);
    }
    held_ = {whole.dtype, copy_.data(), rows, columns};
  }
  Window(const Window&) = delete;
  Window& operator=(const Window&) = delete;

  const HeldMatrix& matrix() const { return held_; }
  // As a lora_A [r, in] or a lora_B [out, r].
  FactorValues a() const { return {held_.dtype, held_.data, held_.rows, held_.columns, false}; }
  FactorValues b() const { return {held_.dtype, held_.data, held_.columns, held_.rows, true}; }

 private:
  HeldMatrix held_;
  std::vector<std::byte> copy_;
};

// Row by row, in double.
class Rows {
 public:
  explicit Rows(const HeldMatrix& matrix)
      : matrix_(matrix), values_(static_cast<size_t>(matrix.columns)) {}
  const std::vector<double>& at(int64_t row) {
    const auto width = static_cast<size_t>(dtype_bytes(matrix_.dtype));
    cast_elements(matrix_.dtype, DType::F64, matrix_.columns,
                  matrix_.data + static_cast<size_t>(row * matrix_.columns) * width,
                  reinterpret_cast<std::byte*>(values_.data()));
    return values_;
  }

 private:
  const HeldMatrix& matrix_;
  std::vector<double> values_;
};

bool all_zero(std::span<const double> values) {
  return std::all_of(values.begin(), values.end(), [](double value) { return value == 0; });
}

// Without branches, so that compilers vectorize it.
template <class Word>
bool all_finite(const std::byte* data, size_t bytes, Word exponent) {
  Word most = 0;
  for (size_t i = 0; i < bytes / sizeof(Word); ++i) {
    Word word;
    std::memcpy(&word, data + i * sizeof word, sizeof word);
    most = std::max(most, static_cast<Word>(word & exponent));
  }
  return most != exponent;
}

// The first `rows` rows are the same bits, of finite values whose multiples are finite too; false
// decides nothing. Nearly all that a server holds is, and the doubles of it take most of the time.
bool has_same_bits(const HeldMatrix& x, const HeldMatrix& y, int64_t rows) {
  if (x.dtype != y.dtype || x.columns != y.columns || x.dtype == DType::F64) return false;
  const auto bytes = static_cast<size_t>(rows * x.columns * dtype_bytes(x.dtype));
  if (bytes == 0 || std::memcmp(x.data, y.data, bytes) != 0) return bytes == 0;
  if (x.dtype == DType::BF16) return all_finite<uint16_t>(x.data, bytes, 0x7F80);
  if (x.dtype == DType::F16) return all_finite<uint16_t>(x.data, bytes, 0x7C00);
  return all_finite<uint32_t>(x.data, bytes, 0x7F800000);
}

// Whether held_scale * held is scale * meant, element by element, within `tolerance` of each value:
// 0 for the same bits but for exponents. Rows of `held` beyond `meant` (of a lora_A) and columns
// beyond it (of a lora_B) must be zero.
bool is_same(const HeldMatrix& meant, double scale, const HeldMatrix& held, double held_scale,
             double tolerance) {
  if (held.rows < meant.rows || held.columns < meant.columns) return false;
  Rows wanted(meant), found(held);
  const auto columns = static_cast<size_t>(meant.columns);
  const bool same_bits = scale == held_scale &&
                         std::fabs(scale) < std::numeric_limits<float>::max() &&
                         has_same_bits(meant, held, meant.rows);
  for (int64_t row = same_bits ? meant.rows : 0; row < held.rows; ++row) {
    const std::vector<double>& f = found.at(row);
    if (row >= meant.rows) {
      if (!all_zero(f)) return false;
      continue;
    }
    const std::vector<double>& w = wanted.at(row);
    for (size_t i = 0; i < columns; ++i) {
      const double value = scale * w[i];
      if (!(std::fabs(held_scale * f[i] - value) <= tolerance * std::fabs(value))) return false;
    }
    if (!all_zero(std::span(f).subspan(columns))) return false;
  }
  return true;
}

RankOneParts parts_of(std::initializer_list<FactorValues> a,
                      std::initializer_list<FactorValues> b) {
  return {std::span(a), std::span(b)};
}

// ---- what is meant and what is served at one place ----

struct Cell {
  const Delta* meant = nullptr;            // null: the server adds what nobody trained
  std::vector<const ServedBlock*> blocks;  // at places of their own
};
using Cells = std::map<DeltaKey, Cell>;

bool same_place(const ServedBlock& x, const ServedBlock& y) {
  return std::tie(x.out_first, x.in_first, x.out_step) ==
             std::tie(y.out_first, y.in_first, y.out_step) &&
         x.a.dim(1) == y.a.dim(1) && x.b.dim(0) == y.b.dim(0);
}

Cells cells_of(const Deltas& meant, const ModelSpec& spec, std::span<const ServedBlock> blocks) {
  Cells out;
  for (const auto& [key, delta] : meant) out[key].meant = &delta;
  const ModuleNames names(spec);
  for (const ServedBlock& block : blocks) {
    DeltaKey key{block.module, block.layer, block.expert};
    if (block.expert < 0) key = {names.of(block.module), -1, -1};
    std::vector<const ServedBlock*>& places = out[key].blocks;
    if (std::none_of(places.begin(), places.end(),
                     [&](const ServedBlock* other) { return same_place(*other, block); }))
      places.push_back(&block);
  }
  return out;
}

// Half a step of a type at 1.
double unit_roundoff(DType dtype) {
  return dtype == DType::BF16 ? 0x1p-8 : dtype == DType::F16 ? 0x1p-11 : 0x1p-24;
}

// What the server's type rounds of the meant factors, relative to each element; a scale that it
// multiplies into lora_B is one rounding more.
struct Rounded {
  Rounded(const Delta& meant, const ServedBlock& block) {
    const double unit = unit_roundoff(block.a.dtype());
    if (meant.a.dtype() != block.a.dtype()) a = unit;
    if (meant.b.dtype() != block.b.dtype()) b = unit;
    if (!is_power_of_two(meant.scale / block.scale)) b += unit * (1 + b);
  }
  double a = 0, b = 0;
};

// One cell while its factors are in memory.
class Measure {
 public:
  Measure(const DeltaKey& key, const Cell& cell, std::span<const std::byte* const> values)
      : cell_(cell), values_(values) {
    out_.key = key;
  }

  ServedDelta run() {
    out_.same = is_same_but_rounded();
    if (!out_.same) measure();
    return std::move(out_);
  }

 private:
  void measure() {
    double apart = 0, served = 0;
    if (cell_.meant != nullptr) apart = meant();
    for (size_t i = 0; i < cell_.blocks.size(); ++i) {
      const auto [own, inner] = block(i);
      served += own;
      apart += own - 2 * inner;
    }
    out_.served = served < 0 ? 0 : std::sqrt(served);  // a NaN stays one
    const double noise = kSums * std::max(out_.meant, out_.served);
    out_.apart = apart <= noise * noise ? 0 : std::sqrt(apart);
    out_.rounding += noise;
  }

  HeldMatrix factor(size_t index, const Tensor& tensor) const {
    return HeldMatrix::of(tensor, values_[index]);
  }
  HeldMatrix meant_a() const { return factor(0, cell_.meant->a); }
  HeldMatrix meant_b() const { return factor(1, cell_.meant->b); }

  bool is_same_but_rounded() const {
    if (cell_.meant == nullptr) return false;
    int64_t covered = 0;
    for (size_t i = 0; i < cell_.blocks.size(); ++i) {
      if (!is_same_but_rounded(i)) return false;
      covered += cell_.blocks[i]->a.dim(1) * cell_.blocks[i]->b.dim(0);
    }
    return covered == cell_.meant->a.dim(1) * cell_.meant->b.dim(0);
  }

  bool is_same_but_rounded(size_t i) const {
    const Delta& delta = *cell_.meant;
    const ServedBlock& served = *cell_.blocks[i];
    const HeldMatrix a = factor(2 + 2 * i, served.a), b = factor(3 + 2 * i, served.b);
    const HeldMatrix ma = meant_a(), mb = meant_b();
    const Window m_a(ma, 0, 1, ma.rows, served.in_first, a.columns);
    const Window m_b(mb, served.out_first, served.out_step, b.rows, 0, mb.columns);
    const Rounded rounded(delta, served);
    return is_same(m_a.matrix(), 1, a, 1, rounded.a) &&
           is_same(m_b.matrix(), delta.scale, b, served.scale, rounded.b);
  }

  double meant() {
    const Delta& delta = *cell_.meant;
    const HeldMatrix a = meant_a(), b = meant_b();
    const RankOneParts parts = parts_of({Window(a).a()}, {Window(b).b()});
    const double squares = delta.scale * delta.scale * parts.all();
    out_.meant = std::sqrt(std::max(0.0, squares));
    out_.measured = std::isfinite(squares);
    double rounded = 0;
    for (const ServedBlock* served : cell_.blocks) {
      const Rounded of(delta, *served);
      rounded = std::max(rounded, of.a + of.b);
    }
    out_.rounding = rounded * std::max(out_.meant, std::fabs(delta.scale) *
                                                       std::sqrt(parts.squares(0, parts.size())));
    return squares;
  }

  struct Block {
    double own, inner;  // |j|^2 and <m, j>
  };
  Block block(size_t i) {
    const ServedBlock& served = *cell_.blocks[i];
    if (out_.defect.empty()) out_.defect = served.defect;
    const size_t first = (cell_.meant == nullptr ? 0 : 2) + 2 * i;
    const HeldMatrix a = factor(first, served.a), b = factor(first + 1, served.b);
    const Window own_a(a), own_b(b);
    const double square = served.scale * served.scale;
    if (cell_.meant == nullptr) return {square * parts_of({own_a.a()}, {own_b.b()}).all(), 0};
    const HeldMatrix ma = meant_a(), mb = meant_b();
    const Window m_a(ma, 0, 1, ma.rows, served.in_first, a.columns);
    const Window m_b(mb, served.out_first, served.out_step, b.rows, 0, mb.columns);
    const RankOneParts parts = parts_of({m_a.a(), own_a.a()}, {m_b.b(), own_b.b()});
    return {square * parts.sum(ma.rows, parts.size(), ma.rows, parts.size()),
            served.scale * cell_.meant->scale * parts.sum(0, ma.rows, ma.rows, parts.size())};
  }

  const Cell& cell_;
  std::span<const std::byte* const> values_;  // A and B of the meant delta, then of each block
  ServedDelta out_;
};

// Matrices of a float type that belong together. An adapter in FP8 or integers means what its
// reader takes it for.
bool is_readable(const Cell& cell) {
  const Delta* delta = cell.meant;
  return delta == nullptr ||
         (is_float(delta->a.dtype()) && is_float(delta->b.dtype()) && delta->a.rank() == 2 &&
          delta->b.rank() == 2 && delta->a.dim(0) == delta->b.dim(1));
}

}  // namespace

double ServedDelta::relative() const { return ProductDistance{meant, served, 0, apart}.relative(); }

bool ServedDelta::is_wrong() const { return measured && !(apart <= rounding); }
bool ServedDelta::is_lost() const { return is_wrong() && served == 0; }

std::vector<ServedDelta> served_differences(const Deltas& meant, const ModelSpec& spec,
                                            std::span<const ServedBlock> blocks, int threads) {
  const Cells cells = cells_of(meant, spec, blocks);
  std::vector<ServedDelta> out;
  std::vector<PlaceFactors> places;
  std::vector<const Cell*> readable;
  for (const auto* entry : in_reading_order(cells)) {
    const auto& [key, cell] = *entry;
    if (!is_readable(cell)) {
      ServedDelta& unknown = out.emplace_back();
      unknown.key = key;
      unknown.measured = false;
      continue;
    }
    PlaceFactors& place = places.emplace_back(PlaceFactors{key, {}});
    if (cell.meant != nullptr) place.factors = {&cell.meant->a, &cell.meant->b};
    for (const ServedBlock* block : cell.blocks)
      place.factors.insert(place.factors.end(), {&block->a, &block->b});
    readable.push_back(&cell);
  }
  const size_t first = out.size();
  out.resize(first + places.size());
  measure_in_batches(places, threads, [&](size_t i, std::span<const std::byte* const> values) {
    out[first + i] = Measure(places[i].key, *readable[i], values).run();
  });
  std::sort(out.begin(), out.end(),
            [](const ServedDelta& x, const ServedDelta& y) { return x.key < y.key; });
  return out;
}

}  // namespace moelora
