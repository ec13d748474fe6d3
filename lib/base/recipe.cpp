#include "lib/base/recipe.h"

#include <utility>

namespace moelora {
namespace {

using Extents = std::vector<int64_t>;

void insert_at(Extents& extents, size_t a, int64_t extent) {
  extents.insert(extents.begin() + static_cast<std::ptrdiff_t>(a), extent);
}
void erase_at(Extents& extents, size_t a) {
  extents.erase(extents.begin() + static_cast<std::ptrdiff_t>(a));
}

void insert_axis(Piece& p, size_t a, int64_t start, int64_t count, int64_t stride) {
  insert_at(p.start, a, start);
  insert_at(p.count, a, count);
  insert_at(p.stride, a, stride);
}
void erase_axis(Piece& p, size_t a) {
  for (Extents* extents : {&p.start, &p.count, &p.stride}) erase_at(*extents, a);
}

}  // namespace

std::vector<int64_t> row_major_steps(std::span<const int64_t> extents) {
  std::vector<int64_t> steps(extents.size(), 1);
  for (size_t a = extents.size(); a-- > 1;) steps[a - 1] = steps[a] * extents[a];
  return steps;
}

void TensorRecipe::split(size_t a, int64_t inner) {
  const int64_t outer = axes[a] / inner;
  std::vector<Piece> out;
  out.reserve(pieces.size());
  for (const Piece& p : pieces) {
    const int64_t lo = p.start[a], hi = lo + p.count[a], step = p.stride[a];
    const auto add = [&](int64_t row, int64_t rows, int64_t col, int64_t cols) {
      Piece q = p;
      q.offset += (row * inner + col - lo) * step;
      q.start[a] = row, q.count[a] = rows, q.stride[a] = step * inner;
      insert_axis(q, a + 1, col, cols, step);
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
  insert_at(axes, a + 1, inner);
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
      q.offset += row * p.stride[a];
      q.start[a] = (p.start[a] + row) * inner + p.start[a + 1];
      q.count[a] = rows == 1 ? p.count[a] * p.count[a + 1] : p.count[a + 1];
      q.stride[a] = unit_inner ? p.stride[a] : p.stride[a + 1];
      erase_axis(q, a + 1);
      out.push_back(std::move(q));
    }
  }
  pieces = std::move(out);
  axes[a] *= inner;
  erase_at(axes, a + 1);
}

void TensorRecipe::insert_unit(size_t a) {
  insert_at(axes, a, 1);
  for (Piece& p : pieces) insert_axis(p, a, 0, 1, 0);
}

void TensorRecipe::erase(size_t a) {
  erase_at(axes, a);
  for (Piece& p : pieces) erase_axis(p, a);
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
