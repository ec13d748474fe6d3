#include "lib/numeric/held_factors.h"

#include <algorithm>
#include <cstring>

namespace moelora {

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
