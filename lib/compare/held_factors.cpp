#include "lib/compare/held_factors.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <span>

#include "lib/base/cast.h"

namespace moelora {
namespace {

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

}  // namespace

Window::Window(const HeldMatrix& whole, int64_t first, int64_t step, int64_t rows, int64_t column,
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

bool is_same(const HeldMatrix& meant, double scale, const HeldMatrix& held, double held_scale,
             double tolerance) {
  if (held.rows < meant.rows || held.columns < meant.columns) return false;
  Rows wanted(meant), found(held);
  const auto columns = static_cast<size_t>(meant.columns);
  for (int64_t row = 0; row < held.rows; ++row) {
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

RankOneParts::RankOneParts(const std::vector<FactorValues>& a, const std::vector<FactorValues>& b)
    : p_(gram_matrix(a)), q_(gram_matrix(b)) {
  for (const FactorValues& factor : a) n_ += factor.rows;
}

double RankOneParts::sum(int64_t i0, int64_t i1, int64_t j0, int64_t j1) const {
  double out = 0;
  for (int64_t i = i0; i < i1; ++i)
    for (int64_t j = j0; j < j1; ++j) out += at(i, j);
  return out;
}

double RankOneParts::diagonal() const {
  double out = 0;
  for (int64_t i = 0; i < n_; ++i) out += at(i, i);
  return out;
}

}  // namespace moelora
