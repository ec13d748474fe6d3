#include "lib/base/page/grid.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>

#include "lib/base/page/markup.h"
#include "lib/base/utf8.h"

namespace moelora::page {
namespace {

constexpr size_t kMostTips = 1200;
constexpr size_t kKeysOfLine = 3;                     // on a terminal
constexpr double kTextWidth = 7.4, kTextHeight = 12;  // of the page's 12 px, about
constexpr size_t kLongestLabel = 28;                  // characters; the whole is in the tips

// The end of a name says most of it.
std::string short_label(const std::string& label) {
  const std::string shown = printable(label, 4096);
  if (shown.size() <= kLongestLabel) return shown;
  size_t from = shown.size() - kLongestLabel + 3;
  while (from < shown.size() && (static_cast<unsigned char>(shown[from]) & 0xC0U) == 0x80U) ++from;
  return "..." + shown.substr(from);
}

class Drawing {
 public:
  explicit Drawing(const Grid& grid) : grid_(grid) {
    size_t longest = 0;
    for (const std::string& row : grid.rows) longest = std::max(longest, short_label(row).size());
    left_ = 10 + kTextWidth * static_cast<double>(longest);
    cell_width_ = std::clamp(720.0 / columns(), 4.0, 24.0);
    cell_height_ = std::clamp(640.0 / rows(), 4.0, 16.0);
  }

  std::string svg() const {
    const double width = left_ + columns() * cell_width_ + 24;
    const double height = kTop + rows() * cell_height_ + 6;
    std::string out = fmt::format(
        "<svg viewBox=\"0 0 {0:.0f} {1:.0f}\" width=\"{0:.0f}\" height=\"{1:.0f}\" role=\"img\" "
        "aria-label=\"{2}\">",
        width, height, text(grid_.title));
    out += fmt::format("<text class=\"ink\" x=\"{:.0f}\" y=\"12\">{}</text>", left_,
                       text(grid_.column_noun));
    return out + column_labels() + row_labels() + cells() + "</svg>";
  }

 private:
  double columns() const { return static_cast<double>(grid_.columns.size()); }
  double rows() const { return static_cast<double>(grid_.rows.size()); }

  // Every so many that they do not touch.
  static size_t every(double room, double needed) {
    return static_cast<size_t>(std::max(1.0, std::ceil(needed / room)));
  }

  std::string column_labels() const {
    size_t longest = 0;
    for (const std::string& column : grid_.columns) longest = std::max(longest, column.size());
    const size_t step = every(cell_width_, kTextWidth * (static_cast<double>(longest) + 0.8));
    std::string out;
    for (size_t i = 0; i < grid_.columns.size(); i += step)
      out += fmt::format("<text x=\"{:.1f}\" y=\"{}\" text-anchor=\"middle\">{}</text>",
                         left_ + (static_cast<double>(i) + 0.5) * cell_width_, kTop - 5,
                         text(grid_.columns[i]));
    return out;
  }

  std::string row_labels() const {
    const size_t step = every(cell_height_, kTextHeight);
    std::string out;
    for (size_t i = 0; i < grid_.rows.size(); i += step)
      out += fmt::format("<text x=\"{:.1f}\" y=\"{:.1f}\" text-anchor=\"end\">{}</text>", left_ - 6,
                         kTop + (static_cast<double>(i) + 0.5) * cell_height_ + 4,
                         text(short_label(grid_.rows[i])));
    return out;
  }

  // Of each shade together, so that its class is written once.
  std::string cells() const {
    std::string out = fmt::format("<g transform=\"translate({:.1f} {}) scale({:.3f} {:.3f})\">",
                                  left_, kTop, cell_width_, cell_height_);
    const bool tips = !grid_.tips.empty() && grid_.cells.size() <= kMostTips;
    for (size_t shade = 0; shade < grid_.key.size(); ++shade) {
      const std::string some = tips ? with_tips(shade) : as_path(shade);
      if (!some.empty())
        out += fmt::format("<g class=\"{}\">{}</g>", grid_.key[shade].css_class, some);
    }
    return out + "</g>";
  }

  std::string with_tips(size_t shade) const {
    std::string out;
    for (size_t i = 0; i < grid_.cells.size(); ++i)
      if (grid_.cells[i] == shade)
        out += fmt::format(
            "<rect x=\"{}\" y=\"{}\" width=\".94\" height=\".92\"><title>{}</title></rect>",
            i % grid_.columns.size(), i / grid_.columns.size(), text(grid_.tips[i]));
    return out;
  }

  // Runs of a row as one piece.
  std::string as_path(size_t shade) const {
    const size_t width = grid_.columns.size();
    std::string out;
    for (size_t i = 0; i < grid_.cells.size();) {
      size_t end = i;
      while (end < (i / width + 1) * width && grid_.cells[end] == shade) ++end;
      if (end > i) out += fmt::format("M{} {}h{}v1h-{}z", i % width, i / width, end - i, end - i);
      i = std::max(end, i + 1);
    }
    return out.empty() ? out : fmt::format("<path d=\"{}\"/>", out);
  }

  static constexpr double kTop = 32;
  const Grid& grid_;
  double left_, cell_width_, cell_height_;
};

std::vector<bool> shades_in_use(const Grid& grid) {
  std::vector<bool> out(grid.key.size());
  for (const uint8_t shade : grid.cells) out[shade] = true;
  return out;
}

std::string key_list(const Grid& grid) {
  const std::vector<bool> used = shades_in_use(grid);
  std::string out;
  for (size_t i = 0; i < grid.key.size(); ++i)
    if (used[i] && !grid.key[i].label.empty())
      out += fmt::format(
          "<li><svg viewBox=\"0 0 1 1\"><rect class=\"{}\" width=\"1\" height=\"1\"/></svg>{}</li>",
          grid.key[i].css_class, text(grid.key[i].label));
  return element("ul", "key", out);
}

std::string block(const Shade& shade, std::string_view two) {
  return shade.terminal < 0 ? fmt::format("{:<{}}", "\u00b7", two.size())
                            : fmt::format("\x1b[48;5;{}m{}\x1b[0m", shade.terminal, two);
}

}  // namespace

Grid narrowed(const Grid& grid, size_t columns) {
  const size_t all = grid.columns.size(), most = std::max<size_t>(1, columns);
  if (all <= most) return grid;
  const size_t step = (all + most - 1) / most;
  Grid out = grid;
  out.tips.clear();
  out.columns.clear();
  for (size_t i = 0; i < all; i += step)
    out.columns.push_back(grid.columns[i] + "-" + grid.columns[std::min(all, i + step) - 1]);
  out.cells.assign(out.rows.size() * out.columns.size(), 0);
  for (size_t i = 0; i < grid.cells.size(); ++i) {
    uint8_t& cell = out.cells[i / all * out.columns.size() + i % all / step];
    cell = std::max(cell, grid.cells[i]);
  }
  out.explanation += fmt::format(" A cell is the worst of {} {}s.", step, grid.column_noun);
  return out;
}

std::string grid_svg(const Grid& grid) { return Drawing(grid).svg(); }

std::string grid_figure(const Grid& grid) {
  return fmt::format(
      "<figure><b>{}</b><div class=\"scroll\">{}</div>{}<figcaption>{}</figcaption></figure>\n",
      text(grid.title), grid_svg(grid), key_list(grid), text(grid.explanation));
}

std::string grid_blocks(const Grid& grid) {
  size_t longest = 0;
  for (const std::string& row : grid.rows) longest = std::max(longest, short_label(row).size());
  const std::string_view cell = grid.columns.size() <= 40 ? "  " : " ";
  std::string out =
      fmt::format("{}, by {} ({} to {}):\n", printable(grid.title), printable(grid.column_noun),
                  printable(grid.columns.front()), printable(grid.columns.back()));
  for (size_t row = 0; row < grid.rows.size(); ++row) {
    out += fmt::format("  {:<{}}  ", short_label(grid.rows[row]), longest);
    for (size_t column = 0; column < grid.columns.size(); ++column)
      out += block(grid.key[grid.cells[row * grid.columns.size() + column]], cell);
    out += "\n";
  }
  const std::vector<bool> used = shades_in_use(grid);
  std::string key;
  size_t shown = 0;
  for (size_t i = 0; i < grid.key.size(); ++i) {
    if (!used[i] || grid.key[i].label.empty()) continue;
    if (shown > 0 && shown % kKeysOfLine == 0) key += "\n";
    key += "  " + block(grid.key[i], "  ") + " " + printable(grid.key[i].label);
    ++shown;
  }
  return out + key + "\n";
}

}  // namespace moelora::page
