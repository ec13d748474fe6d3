#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

namespace moelora::page {

// What the cells of one kind look like.
struct Shade {
  std::string_view css_class;  // of the page
  int terminal;                // a color of 256; -1 for none: a dot
  std::string label;           // of the key; "" to leave it out of it
};

// Rows and columns of cells, each of one shade.
struct Grid {
  std::string title;
  std::string explanation;  // what one sees, and what is not shown as it is
  std::string column_noun;  // over the columns: "layer"
  std::vector<std::string> rows, columns;
  std::vector<Shade> key;
  std::vector<uint8_t> cells;     // row by row, index in `key`
  std::vector<std::string> tips;  // of each cell, or empty
};

// The same in at most so many columns: neighbors share a cell, which has the one of their shades
// that is last in the key; the explanation says so.
Grid narrowed(const Grid& grid, size_t columns);

// A <figure> that scrolls by itself where it is wider than the page. Cells have tips only where
// they are few.
std::string grid_figure(const Grid& grid);
// The drawing alone, at its natural size.
std::string grid_svg(const Grid& grid);

// The same as colored blocks for a terminal that knows 256 colors; a line for each row, and one
// with the key. REQUIRES: a cell, and as narrow as the terminal (narrowed(), HeatMap::fitted).
std::string grid_blocks(const Grid& grid);

}  // namespace moelora::page
