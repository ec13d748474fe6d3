#pragma once

#include <cstddef>
#include <optional>
#include <string>
#include <vector>

#include "lib/base/page/grid.h"

namespace moelora::page {

// A value for each cell of a grid, told by shades: of values above 0 nine steps of a logarithmic
// scale, or of a linear one from 0 to `full`.
struct HeatMap {
  std::string title, explanation;
  std::string row_noun, column_noun;  // "module", "layer"
  std::vector<std::string> rows, columns;
  std::vector<std::optional<double>> values;  // row by row; nullopt: nothing is there
  std::optional<double> full;                 // set: linear from 0 to this
  std::string zero;                           // what exactly 0 means, for the key: "identical"

  // The same with these words.
  HeatMap titled(std::string title, std::string row_noun, std::string column_noun,
                 std::string explanation, std::string zero) const;

  // Of at most so many rows and columns: neighbors share a cell, which has the largest value of
  // them, one that is not finite first; the explanation says so.
  HeatMap fitted(size_t rows, size_t columns) const;
};

inline constexpr size_t kMostRows = 128, kMostColumns = 144;  // of a page

Grid shaded(const HeatMap& map);
std::string heat_map_figure(const HeatMap& map);
// As blocks, in `width` columns of a terminal (0: unknown).
std::string heat_map_blocks(const HeatMap& map, size_t width);

}  // namespace moelora::page
