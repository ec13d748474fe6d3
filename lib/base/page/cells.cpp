#include "lib/base/page/cells.h"

#include <cmath>
#include <iterator>
#include <set>

namespace moelora::page {

void Cells::add(int64_t order, const std::string& row, int64_t column, double value) {
  Gathered& cell = rows_[{order, row}][column];
  if (cell.count == 0 || !(value <= cell.largest)) cell.largest = value;  // NaN is the largest
  cell.squares = std::hypot(cell.squares, value);
  cell.sum += value;
  ++cell.count;
}

double Cells::Gathered::shown(Show show) const {
  switch (show) {
    case Show::largest:
      return largest;
    case Show::root_of_squares:
      return squares;
    case Show::mean:
      break;
  }
  return sum / static_cast<double>(count);
}

HeatMap Cells::map(Show show) const {
  HeatMap out;
  std::set<int64_t> columns;
  for (const auto& row : rows_)
    for (const auto& cell : row.second) columns.insert(cell.first);
  for (const int64_t column : columns)
    out.columns.push_back(column < 0 ? "none" : std::to_string(column));
  for (const auto& [key, cells] : rows_) {
    out.rows.push_back(key.second);
    for (const int64_t column : columns) {
      const auto cell = cells.find(column);
      out.values.push_back(cell == cells.end() ? std::nullopt
                                               : std::optional(cell->second.shown(show)));
    }
  }
  return out;
}

}  // namespace moelora::page
