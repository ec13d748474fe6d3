#include "lib/base/recipe.h"

#include <utility>

namespace moelora {
void TensorRecipe::split(size_t a, int64_t inner) {
  const int64_t outer = axes[a] / inner;
  std::vector<Piece> out;
  out.reserve(pieces.size());
  for (const Piece& p : pieces) {
    const int64_t lo = p.start[a], hi = lo + p.count[a], step = p.stride[a];
    const auto add = [&](int64_t row, int64_t rows, int64_t col, int64_t cols) {
      Piece q = p;
      q.offset += (row * inner + col - lo) * step;
      const auto at = static_cast<std::ptrdiff_t>(a);
      q.start[a] = row, q.count[a] = rows, q.stride[a] = step * inner;
      q.start.insert(q.start.begin() + at + 1, col);
      q.count.insert(q.count.begin() + at + 1, cols);
      q.stride.insert(q.stride.begin() + at + 1, step);
      out.push_back(std::move(q));
    };
    const int64_t first_row = lo / inner, last_row = (hi - 1) / inner;
    if (first_row == last_row) {
      add(first_row, 1, lo % inner, hi - lo);
      continue;
    }
    const int64_t full_lo = (lo + inner - 1) / inner, full_hi = hi / inner;
    if (lo % inner != 0) add(first_row, 1, lo % inner, inner - lo % inner);
    if (full_hi > full_lo) add(full_lo, full_hi - full_lo, 0, inner);
    if (hi % inner != 0) add(last_row, 1, 0, hi % inner);
  }
  pieces = std::move(out);
  axes[a] = outer;
  axes.insert(axes.begin() + static_cast<std::ptrdiff_t>(a) + 1, inner);
}

void TensorRecipe::merge(size_t a) {
  const int64_t inner = axes[a + 1];
  std::vector<Piece> out;
  out.reserve(pieces.size());
  for (const Piece& p : pieces) {
    const bool whole_rows = p.count[a + 1] == inner;
    const bool straight = p.count[a] == 1 || (whole_rows && p.stride[a] == p.stride[a + 1] * inner);
    const bool unit_inner = inner == 1;
    const int64_t rows = straight || unit_inner ? 1 : p.count[a];
    for (int64_t row = 0; row < rows; ++row) {
      Piece q = p;
      const auto at = static_cast<std::ptrdiff_t>(a) + 1;
      q.offset += row * p.stride[a];
      q.start[a] = (p.start[a] + row) * inner + p.start[a + 1];
      q.count[a] = rows == 1 ? p.count[a] * p.count[a + 1] : p.count[a + 1];
      q.stride[a] = unit_inner ? p.stride[a] : p.stride[a + 1];
      q.start.erase(q.start.begin() + at);
      q.count.erase(q.count.begin() + at);
      q.stride.erase(q.stride.begin() + at);
      out.push_back(std::move(q));
    }
  }
  pieces = std::move(out);
  axes[a] *= inner;
  axes.erase(axes.begin() + static_cast<std::ptrdiff_t>(a) + 1);
}

void TensorRecipe::insert_unit(size_t a) {
  const auto at = static_cast<std::ptrdiff_t>(a);
  axes.insert(axes.begin() + at, 1);
  for (Piece& p : pieces) {
    p.start.insert(p.start.begin() + at, 0);
    p.count.insert(p.count.begin() + at, 1);
    p.stride.insert(p.stride.begin() + at, 0);
  }
}

void TensorRecipe::erase(size_t a) {
  const auto at = static_cast<std::ptrdiff_t>(a);
  axes.erase(axes.begin() + at);
  for (Piece& p : pieces) {
    p.start.erase(p.start.begin() + at);
    p.count.erase(p.count.begin() + at);
    p.stride.erase(p.stride.begin() + at);
  }
}

void TensorRecipe::erase_units() {
  for (size_t a = axes.size(); a-- > 0;)
    if (axes[a] == 1) erase(a);
}

std::vector<int> TensorRecipe::cut(const std::vector<int64_t>& shape) {
  std::vector<int> runs(shape.size());
  size_t end = axes.size();
  for (size_t d = shape.size(); d-- > 0;) {
    int64_t have = 1;
    size_t begin = end;
    while (have < shape[d]) {
      const int64_t n = axes[begin - 1];
      const int64_t need = shape[d] / have;
      const bool clean = shape[d] % have == 0;
      if (clean && n <= need && need % n == 0) {
        --begin;
        have *= n;
      } else if (clean && n > need && n % need == 0) {
        split(begin - 1, need);
        have = shape[d];
        ++end;
      } else {
        while (axes.size() > 1) merge(axes.size() - 2);
        return cut(shape);
      }
    }
    runs[d] = static_cast<int>(end - begin);
    end = begin;
  }
  return runs;
}

}  // namespace moelora
