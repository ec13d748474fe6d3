#include "lib/base/page/page.h"

#include <doctest/doctest.h>

#include <cmath>
#include <limits>
#include <string>

#include "lib/base/page/bars.h"
#include "lib/base/page/grid.h"
#include "lib/base/page/heat_map.h"
#include "lib/base/page/markup.h"
#include "lib/base/page/plot.h"

using namespace moelora;
using namespace moelora::page;

namespace {

bool has(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

size_t count(const std::string& text, const std::string& part) {
  size_t out = 0;
  for (size_t at = text.find(part); at != std::string::npos; at = text.find(part, at + 1)) ++out;
  return out;
}

const std::string kHostile = "<b>\"q\"&'\n\x1b[31m\xff\u202e</text>";

void check_harmless(const std::string& markup) {
  CAPTURE(markup);
  CHECK(!has(markup, "<b>\""));
  CHECK(!has(markup, "\"q\""));
  CHECK(!has(markup, "\x1b"));
  CHECK(!has(markup, "\xff"));
  CHECK(!has(markup, "\u202e"));
  CHECK(has(markup, "&lt;b&gt;&quot;q&quot;&amp;"));
}

HeatMap map_of(size_t rows, size_t columns) {
  HeatMap out;
  out.title = "distance";
  out.row_noun = "module";
  out.column_noun = "layer";
  for (size_t i = 0; i < rows; ++i) out.rows.push_back(std::to_string(i));
  for (size_t i = 0; i < columns; ++i) out.columns.push_back(std::to_string(i));
  out.values.assign(rows * columns, 0.5);
  return out;
}

}  // namespace

TEST_CASE("text of every part of a page is escaped, in elements and in attributes") {
  check_harmless(page::text(kHostile));
  check_harmless(page::lines(kHostile));
  check_harmless(page::item(kHostile));
  check_harmless(page::terms({{kHostile, "x"}}));
  check_harmless(whole_page(kHostile, {}, ""));
  check_harmless(whole_page("x", {kHostile, ""}, ""));
  check_harmless(whole_page("x", {"", kHostile}, ""));
  check_harmless(bar_figure({kHostile, "", {{"x", 1, "1"}}}));
  check_harmless(bar_figure({"x", "", {{kHostile, 1, "1"}}}));
  check_harmless(bar_figure({"x", "", {{"x", 1, kHostile}}}));
  const ValueScale scale = ValueScale::linear({0, 1});
  check_harmless(Plot(kHostile, {"x", scale}, {"y", scale}).finish(""));
  check_harmless(Plot("x", {kHostile, scale}, {"y", scale}).finish(kHostile));
  HeatMap map = map_of(1, 1);
  map.rows[0] = map.columns[0] = map.title = map.explanation = map.column_noun = kHostile;
  check_harmless(heat_map_figure(map));
  CHECK(!has(heat_map_blocks(map, 80), "\x1b[31m"));
}

TEST_CASE("a page says command, version and date, and loads nothing") {
  const std::string made = whole_page("t", {"lora-diff weights a b", "2026-12-01 05:05 UTC"}, "");
  CHECK(has(made, "lora-diff weights a b"));
  CHECK(has(made, "2026-12-01 05:05 UTC"));
  CHECK(has(made, "moelora 0."));
  CHECK(has(made, "prefers-color-scheme: dark"));
  CHECK(has(made, "@media print"));
  for (const char* loads : {"<script", "http://", "https://", "<link", "<img", "@import", "url("})
    CHECK(!has(made, loads));
}

TEST_CASE("a scale is clipped where one value would take most of it, and says so") {
  std::vector<double> values;
  for (int i = 0; i < 1000; ++i) values.push_back(0.001 * i);
  CHECK(ValueScale::linear(values).remark("values").empty());
  values.push_back(1e6);
  const ValueScale linear = ValueScale::linear(values);
  CHECK(linear.high() < 1.1);
  CHECK(linear.at(1e6) == 1);
  CHECK(linear.is_above(1e6));
  CHECK(has(linear.remark("tokens"), "tokens above"));
  CHECK(has(linear.remark("tokens"), "up to 1e+06"));
  values.push_back(-1e6);
  CHECK(has(ValueScale::linear(values).remark("tokens"), "down to -1e+06"));
}

TEST_CASE("a scale keeps its tails: only what is far out is clipped") {
  std::vector<double> values(1000, -1);
  for (size_t i = 0; i < 500; ++i) values[i] = -1 - 0.002 * static_cast<double>(i);
  values.insert(values.end(), {-2.9, -1e6});
  const ValueScale scale = ValueScale::linear(values);
  CHECK(scale.low() == doctest::Approx(-2.9).epsilon(0.05));
  CHECK(has(scale.remark("tokens"), "clipped: 1 tokens below"));
}

TEST_CASE("shades span a decade, so that small differences look small") {
  HeatMap map = map_of(1, 2);
  map.values = {1.2, 1.3};
  const Grid grid = shaded(map);
  CHECK(grid.key[grid.cells[0]].css_class == "s9");
  CHECK(grid.key[grid.cells[1]].css_class == "s9");
}

TEST_CASE("a logarithmic scale holds decades as they are, and says where zeros and NaN went") {
  std::vector<double> values;
  for (int i = 0; i < 1000; ++i) values.push_back(std::pow(10, -6 + i * 0.004));
  values.push_back(30);
  const ValueScale scale = ValueScale::logarithmic(values);
  CHECK(scale.remark("values").empty());
  CHECK(scale.at(30) < 1);
  CHECK(scale.at(1e-2) - scale.at(1e-4) == doctest::Approx(scale.at(1) - scale.at(1e-2)));
  CHECK(scale.value(scale.at(0.5)) == doctest::Approx(0.5));
  values.insert(values.end(), {0, 0, std::nan("")});
  const std::string remark = ValueScale::logarithmic(values).remark("tokens");
  CHECK(has(remark, "2 tokens of exactly 0"));
  CHECK(has(remark, "1 tokens not finite"));
  CHECK(ValueScale::logarithmic({}).at(0) == 0);  // nothing to show is no division by zero
  CHECK(std::isfinite(ValueScale::logarithmic({3}).at(3)));
}

TEST_CASE("ticks are round and few, of a linear scale, of decades and of less than one") {
  CHECK(ValueScale::linear({0, 10}).ticks(5) == std::vector<double>{0, 5, 10});
  CHECK(ValueScale::logarithmic({1e-3, 1e3}).ticks(4).size() <= 5);
  CHECK(ValueScale::logarithmic({2, 3}).ticks(6).size() >= 3);
  CHECK(ValueScale::logarithmic({2, 8}).ticks(4) == std::vector<double>{2, 4, 6, 8});
  CHECK(ValueScale::logarithmic({0.5, 20}).ticks(4) == std::vector<double>{0.5, 1, 2, 5, 10, 20});
  CHECK(ValueScale::linear({7, 7}).ticks(5).size() >= 2);
}

TEST_CASE("many points become a density of a bounded size, and none is left out") {
  const auto chart = [](int points) {
    Points all;
    std::vector<double> x, y;
    for (int i = 0; i < points; ++i) {
      all.emplace_back(i, std::sin(i));
      x.push_back(i);
      y.push_back(std::sin(i));
    }
    Plot plot("t", {"x", ValueScale::linear(x)}, {"y", ValueScale::linear(y)});
    plot.scatter(all);
    return plot.finish("");
  };
  CHECK(count(chart(1000), "<circle") == 1000);
  const std::string many = chart(100000);
  CHECK(!has(many, "<circle"));
  CHECK(many.size() < 80000);
  CHECK(has(many, "density of 100000 points"));
}

TEST_CASE("a heat map has shades for steps, and others for nothing, zero, outliers and NaN") {
  HeatMap map = map_of(4, 10);
  for (size_t i = 0; i < map.values.size(); ++i) map.values[i] = 0.01 * static_cast<double>(i + 1);
  map.zero = "identical";
  map.values[0] = std::nullopt;
  map.values[1] = 0.0;
  map.values[2] = std::nan("");
  map.values[3] = 1e9;
  const Grid grid = shaded(map);
  const auto shade = [&](size_t i) { return grid.key[grid.cells[i]].css_class; };
  CHECK(shade(0) == "k0");
  CHECK(shade(1) == "kz");
  CHECK(shade(2) == "kx");
  CHECK(shade(3) == "ka");
  CHECK(shade(4) == "s1");
  CHECK(shade(39) == "s9");
  const std::string figure = grid_figure(grid);
  CHECK(has(figure, "identical"));
  CHECK(has(figure, "up to 1e+09"));
  CHECK(has(figure, "<title>0, layer 5: 0.06</title>"));
}

TEST_CASE(
    "a large heat map shares cells and keeps the largest value, one that is not finite first") {
  HeatMap map = map_of(94, 512);
  map.values[3] = 7.0;
  map.values[512 * 2 + 5] = std::numeric_limits<double>::infinity();
  map.values[512 * 2 + 6] = 9.0;
  const HeatMap small = map.fitted(47, 128);
  CHECK(small.rows.size() == 47);
  CHECK(small.columns.size() == 128);
  CHECK(small.rows[1] == "2-3");
  CHECK(small.columns[1] == "4-7");
  CHECK(*small.values[0] == 7);
  CHECK(std::isinf(*small.values[128 + 1]));
  CHECK(has(small.explanation, "the largest of 2 modules and 4 layers"));
  CHECK(heat_map_figure(map).size() < 60000);
}

TEST_CASE("a heat map of 0 to 1 is linear") {
  HeatMap map = map_of(1, 3);
  map.full = 1;
  map.values = {0.05, 0.5, 1.0};
  const Grid grid = shaded(map);
  CHECK(grid.key[grid.cells[0]].css_class == "s1");
  CHECK(grid.key[grid.cells[1]].css_class == "s5");
  CHECK(grid.key[grid.cells[2]].css_class == "s9");
}

TEST_CASE("blocks for a terminal have a line for each row, and fit its width") {
  const std::string blocks = heat_map_blocks(map_of(3, 300), 100);
  CHECK(count(blocks, "\n") == 5);
  CHECK(count(blocks.substr(0, blocks.find("\n  1")), "\x1b[48;5;") <= 100);
  CHECK(has(blocks, "by layer (0-"));
}

TEST_CASE("a narrower grid shows the worst of the cells that it joins") {
  Grid grid;
  grid.title = "t";
  grid.column_noun = "layer";
  grid.rows = {"a", "b"};
  grid.key = {{"gap", -1, ""}, {"used", 71, "adapted"}, {"lost", 160, "dropped"}};
  for (int i = 0; i < 100; ++i) grid.columns.push_back(std::to_string(i));
  grid.cells.assign(200, 1);
  grid.cells[107] = 2;
  const Grid narrow = narrowed(grid, 20);
  CHECK(narrow.columns.size() == 20);
  CHECK(narrow.columns[1] == "5-9");
  CHECK(narrow.cells[0] == 1);
  CHECK(narrow.cells[21] == 2);
  CHECK(has(narrow.explanation, "the worst of 5 layers"));
  CHECK(narrowed(grid, 100).columns.size() == 100);
}

TEST_CASE("of many bars the largest are drawn, and the caption says it") {
  BarChart chart{"memory", "Bytes.", {}};
  for (int i = 0; i < 100; ++i)
    chart.bars.push_back({"b" + std::to_string(i), static_cast<double>(i), "x"});
  const std::string figure = bar_figure(chart);
  CHECK(count(figure, "<rect") == kMostBars);
  CHECK(has(figure, "b99"));
  CHECK(!has(figure, ">b1<"));
  CHECK(has(figure, "The largest 24 of 100."));
}
