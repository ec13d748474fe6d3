#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <utility>

#include "lib/base/page/heat_map.h"

namespace moelora::page {

// Values gathered by row and column, many to a cell, and then what a heat map shows of them.
class Cells {
 public:
  // Rows are in the order of `order`, then of their labels; columns in that of their numbers, -1
  // being "none".
  void add(int64_t order, const std::string& row, int64_t column, double value);
  void add(int64_t row, int64_t column, double value) {
    add(row, std::to_string(row), column, value);
  }

  bool empty() const { return rows_.empty(); }

  enum class Show : uint8_t { largest, root_of_squares, mean };
  HeatMap map(Show show) const;  // without titles and nouns

 private:
  struct Gathered {
    double largest = 0, squares = 0, sum = 0;
    int64_t count = 0;
    double shown(Show show) const;
  };
  std::map<std::pair<int64_t, std::string>, std::map<int64_t, Gathered>> rows_;
};

}  // namespace moelora::page
