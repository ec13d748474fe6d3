#include "lib/base/page/heat_map.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "lib/base/page/markup.h"
#include "lib/base/page/scale.h"

namespace moelora::page {
namespace {

constexpr int kSteps = 9;
constexpr std::array<std::string_view, kSteps> kClasses = {"s1", "s2", "s3", "s4", "s5",
                                                           "s6", "s7", "s8", "s9"};
// From pale to dark, to be told apart on a dark and on a light terminal.
constexpr std::array<int, kSteps> kTerminal = {195, 153, 117, 75, 69, 33, 27, 20, 18};

enum Special : uint8_t { kNone, kZero, kFirstStep, kAbove = kFirstStep + kSteps, kNotFinite };

// How neighbors of one axis share cells.
struct Merge {
  size_t size, step;
  Merge(size_t extent, size_t most)
      : size(0), step(std::max<size_t>(1, (extent + most - 1) / std::max<size_t>(1, most))) {
    size = (extent + step - 1) / step;
  }

  std::vector<std::string> labels(const std::vector<std::string>& all) const {
    std::vector<std::string> out;
    for (size_t i = 0; i < all.size(); i += step) {
      const size_t last = std::min(all.size(), i + step) - 1;
      out.push_back(last == i ? all[i] : all[i] + "-" + all[last]);
    }
    return out;
  }

  std::string text(std::string_view noun) const {
    return step == 1 ? "" : fmt::format("{} {}s", step, noun);
  }
};

bool is_larger(double x, const std::optional<double>& than) {
  if (!than) return true;
  if (!std::isfinite(*than)) return false;
  return !std::isfinite(x) || x > *than;
}

std::string cell_tip(const HeatMap& map, size_t i) {
  const std::string& row = map.rows[i / map.columns.size()];
  const std::string& column = map.columns[i % map.columns.size()];
  return fmt::format("{}, {} {}: {}", row, map.column_noun, column,
                     map.values[i] ? number(*map.values[i]) : "nothing");
}

ValueScale scale_of(const HeatMap& map) {
  if (map.full) return ValueScale::linear({0, *map.full});
  std::vector<double> values;
  for (const auto& value : map.values)
    if (value && *value > 0) values.push_back(*value);
  return ValueScale::logarithmic(values, 1);  // small differences look small
}

uint8_t shade_of(const std::optional<double>& value, const ValueScale& scale) {
  if (!value) return kNone;
  if (!std::isfinite(*value)) return kNotFinite;
  if (*value == 0) return kZero;
  if (scale.is_logarithmic() && scale.is_above(*value)) return kAbove;
  const int step = static_cast<int>(scale.at(*value) * kSteps);
  return static_cast<uint8_t>(kFirstStep + std::min(step, kSteps - 1));
}

std::vector<Shade> key_of(const HeatMap& map, const ValueScale& scale) {
  std::vector<Shade> out;
  out.push_back({"k0", -1, "nothing there"});
  out.push_back({"kz", 151, map.zero.empty() ? "0" : map.zero});
  for (int step = 0; step < kSteps; ++step) {
    const double end = scale.value(static_cast<double>(step + 1) / kSteps);
    out.push_back({kClasses[static_cast<size_t>(step)], kTerminal[static_cast<size_t>(step)],
                   fmt::format("to {:.2g}", end)});
  }
  out.push_back({"ka", 208, fmt::format("above {:.2g}", scale.high())});
  out.push_back({"kx", 199, "not finite"});
  return out;
}

}  // namespace

HeatMap HeatMap::titled(std::string title_, std::string row, std::string column, std::string text,
                        std::string zero_) const {
  HeatMap out = *this;
  out.title = std::move(title_);
  out.row_noun = std::move(row);
  out.column_noun = std::move(column);
  out.explanation = std::move(text);
  out.zero = std::move(zero_);
  return out;
}

HeatMap HeatMap::fitted(size_t most_rows, size_t most_columns) const {
  const Merge down(rows.size(), most_rows), across(columns.size(), most_columns);
  if (down.step == 1 && across.step == 1) return *this;
  HeatMap out = *this;
  out.rows = down.labels(rows);
  out.columns = across.labels(columns);
  out.values.assign(out.rows.size() * out.columns.size(), std::nullopt);
  for (size_t i = 0; i < values.size(); ++i) {
    if (!values[i]) continue;
    auto& cell = out.values[i / columns.size() / down.step * out.columns.size() +
                            i % columns.size() / across.step];
    if (is_larger(*values[i], cell)) cell = values[i];
  }
  const std::string by = down.text(row_noun), with = across.text(column_noun);
  out.explanation += fmt::format(" A cell is the largest of {}{}{}.", by,
                                 by.empty() || with.empty() ? "" : " and ", with);
  return out;
}

Grid shaded(const HeatMap& map) {
  const ValueScale scale = scale_of(map);
  Grid out;
  out.title = map.title;
  out.explanation = map.explanation;
  if (const std::string remark = scale.remark("cells"); !remark.empty())
    out.explanation += " Shades " + remark + ".";
  out.column_noun = map.column_noun;
  out.rows = map.rows;
  out.columns = map.columns;
  out.key = key_of(map, scale);
  for (size_t i = 0; i < map.values.size(); ++i) {
    out.cells.push_back(shade_of(map.values[i], scale));
    out.tips.push_back(cell_tip(map, i));
  }
  return out;
}

std::string heat_map_figure(const HeatMap& map) {
  return map.values.empty() ? "" : grid_figure(shaded(map.fitted(kMostRows, kMostColumns)));
}

std::string heat_map_blocks(const HeatMap& map, size_t width) {
  if (map.values.empty()) return "";
  constexpr size_t kLabels = 34, kMostLines = 64;
  const size_t room = width > kLabels + 20 ? width - kLabels : 20;
  return grid_blocks(shaded(map.fitted(kMostLines, room > 80 ? room : room / 2)));
}

}  // namespace moelora::page
