#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <map>

#include "lib/base/page/cells.h"
#include "lib/base/page/markup.h"
#include "lib/base/page/plot.h"
#include "lib/base/utf8.h"
#include "lib/diff/weight_parts.h"

namespace moelora {
namespace {

using page::Cells;
using page::HeatMap;
using page::Plot;
using page::Points;
using page::ValueScale;

constexpr size_t kListed = 20;  // of each kind that a page lists

// ---- heat maps ----------------------------------------------------------------------------------

HeatMap by_module(const WeightComparison& c) {
  Cells cells;
  for (const Distance& d : c.diff.pairs)
    cells.add(0, place_name(d.key), place_layer(d.key), d.relative());
  return cells.map(Cells::Show::largest)
      .titled("Distance by module and layer", "module", "layer",
              "The relative distance of the two deltas; of routed experts the largest of all.",
              "0 or below rounding");
}

HeatMap by_expert(const WeightComparison& c) {
  Cells cells;
  for (const Distance& d : c.diff.pairs)
    if (d.key.expert >= 0) cells.add(d.key.layer, d.key.expert, d.relative());
  return cells.map(Cells::Show::largest)
      .titled("Distance by layer and routed expert", "layer", "expert",
              "The largest relative distance of the expert's projections.", "0 or below rounding");
}

// ---- charts -------------------------------------------------------------------------------------

std::string distances(const WeightComparison& c) {
  std::vector<double> values;
  for (const Distance& d : c.diff.pairs) values.push_back(d.relative());
  return page::histogram("How far pairs are apart", "relative distance, log", "pairs", values);
}

// Of a layer, all its pairs together.
struct LayerSums {
  double norm_a = 0, norm_b = 0, rank_a = 0, rank_b = 0;
  double pairs = 0;
};

std::map<int, LayerSums> layers_of(const WeightComparison& c) {
  std::map<int, LayerSums> out;
  for (const Distance& d : c.diff.pairs) {
    const int layer = place_layer(d.key);
    if (layer < 0) continue;
    LayerSums& sums = out[layer];
    sums.norm_a = std::hypot(sums.norm_a, d.norm_a);
    sums.norm_b = std::hypot(sums.norm_b, d.norm_b);
    sums.rank_a += d.effective_rank_a;
    sums.rank_b += d.effective_rank_b;
    ++sums.pairs;
  }
  return out;
}

// Of A and of B, along the layers.
std::string two_lines(const std::string& title, std::string_view explanation, const Points& a,
                      const Points& b, bool log) {
  std::vector<double> x, y;
  for (const Points* side : {&a, &b})
    for (const auto& [layer, value] : *side) {
      x.push_back(layer);
      y.push_back(value);
    }
  Plot plot(
      title, {"layer", ValueScale::linear(x), true},
      {log ? title + ", log" : title, log ? ValueScale::logarithmic(y) : ValueScale::linear(y)});
  plot.line(a, "line");
  plot.line(b, "line2");
  plot.rings(a.size() == 1 ? a : Points{});  // one layer is no line
  plot.key("line", "A");
  plot.key("line2", "B");
  return plot.finish(explanation);
}

std::string along_layers(const WeightComparison& c) {
  const auto layers = layers_of(c);
  if (layers.empty()) return "";
  Points norm_a, norm_b, rank_a, rank_b;
  for (const auto& [layer, sums] : layers) {
    norm_a.emplace_back(layer, sums.norm_a);
    norm_b.emplace_back(layer, sums.norm_b);
    rank_a.emplace_back(layer, sums.rank_a / sums.pairs);
    rank_b.emplace_back(layer, sums.rank_b / sums.pairs);
  }
  return two_lines("Norm of a layer's deltas", "Root of the sum of squares.", norm_a, norm_b,
                   true) +
         two_lines("Effective rank", "Mean over the layer's pairs.", rank_a, rank_b, false);
}

std::string spectrum_part(const WeightComparison& c) {
  if (!c.spectrum || c.spectrum->apart.empty()) return "";
  const Spectrum& s = *c.spectrum;
  std::vector<double> all = s.a;
  all.insert(all.end(), s.b.begin(), s.b.end());
  all.insert(all.end(), s.apart.begin(), s.apart.end());
  const double rounding = *std::max_element(all.begin(), all.end()) * 1e-7;
  std::erase_if(all, [&](double value) { return value <= rounding; });
  if (all.empty()) return "";
  const auto points = [&](const std::vector<double>& values) {
    Points out;
    for (const double value : values)
      if (value > rounding) out.emplace_back(static_cast<double>(out.size() + 1), value);
    return out;
  };
  const size_t most = std::max({points(s.a).size(), points(s.b).size(), points(s.apart).size()});
  const double last = static_cast<double>(std::max<size_t>(2, most));
  Plot plot("Spectrum of the worst pair", {"index", ValueScale::linear({1, last}), true},
            {"singular value, log", ValueScale::logarithmic(all)});
  plot.line(points(s.a), "line");
  plot.line(points(s.b), "line2");
  plot.line(points(s.apart), "line3");
  plot.key("line", "A");
  plot.key("line2", "B");
  plot.key("line3", "A - B");
  return plot.finish(to_string(s.key) + ". Below 1e-7 of the largest is rounding and not drawn.");
}

// ---- tables -------------------------------------------------------------------------------------

std::string modules_table(const WeightComparison& c) {
  page::Table table({"module", "layers", "pairs", "identical", "distance", "least cosine", "norm A",
                     "norm B", "rank A", "rank B"});
  const auto modules = modules_of(c);
  size_t rows = 0;
  for (const auto& [name, row] : modules) {
    if (++rows > page::kMostRows) break;
    table.row({page::code(name), ranges({row.layers.begin(), row.layers.end()}),
               std::to_string(row.pairs), std::to_string(row.identical),
               page::number(row.worst->relative()), fmt::format("{:.6f}", row.least_cosine),
               page::number(row.norm_a), page::number(row.norm_b),
               fmt::format("{:.1f}", row.rank_a), fmt::format("{:.1f}", row.rank_b)});
  }
  return page::heading("Modules") + table.finish() +
         page::and_more(modules.size(), page::kMostRows);
}

std::string worst_table(const WeightComparison& c) {
  const auto list = worst_first(c);
  if (list.empty()) return "";
  page::Table table({"pair", "distance", "cosine", "norm A", "norm B", "rank A", "rank B"});
  for (size_t i = 0; i < std::min(list.size(), kListed); ++i) {
    const Distance& d = *list[i];
    table.row({page::code(to_string(d.key)), page::number(d.relative()),
               fmt::format("{:.6f}", d.cosine()), page::number(d.norm_a), page::number(d.norm_b),
               fmt::format("{:.1f}", d.effective_rank_a),
               fmt::format("{:.1f}", d.effective_rank_b)});
  }
  return page::heading("Worst pairs") + table.finish() +
         page::and_more(list.size(), kListed,
                        fmt::format("beyond the tolerance of {:g}", c.tolerance));
}

std::vector<std::string> names_of(const std::vector<DeltaKey>& keys) {
  std::vector<std::string> out;
  for (const DeltaKey& key : keys) out.push_back(to_string(key));
  return out;
}

std::string head(const WeightComparison& c) {
  std::string out;
  for (const auto& [letter, side] : {std::pair('A', &c.a), std::pair('B', &c.b)})
    out += fmt::format("<p>{}: {} <span class=\"soft\">({}, {} pairs)</span></p>\n", letter,
                       page::code(side->path), page::text(side->layout), side->pairs);
  const std::string verdict = verdict_text(c);
  const size_t end = verdict.find('\n');
  out += page::paragraph(verdict.substr(0, end), c.same() ? "verdict good" : "verdict bad");
  if (end + 1 < verdict.size())
    out += page::paragraph(verdict.substr(end + 1, verdict.size() - end - 2));
  return out;
}

std::string meanings() {
  return page::terms(
      {{"delta",
        "what an adapter adds to a weight: scale * lora_B lora_A; a pair is one of each "
        "adapter at the same place"},
       {"distance",
        "|A - B| / |A| in the Frobenius norm, from the factors; below 1e-7 it is "
        "rounding and told as 0"},
       {"cosine", "the inner product of the two over their norms: 1 for the same direction"},
       {"norm", "the Frobenius norm of a delta; of several the root of the sum of squares"},
       {"rank",
        "effective rank, (sum s^2)^2 / sum s^4 of the singular values s: 1 where one "
        "direction holds all, r where all r are equal"},
       {"identical", "factors and scale are the same, bit for bit"}});
}

}  // namespace

std::string weight_html(const WeightComparison& c, const PageOrigin& origin) {
  std::string out = head(c);
  for (const std::string& note : c.notes) out += page::paragraph("note: " + note, "soft");
  if (!c.diff.pairs.empty()) {
    out += heat_map_figure(by_module(c)) + heat_map_figure(by_expert(c));
    out += page::element("div", "charts", distances(c) + spectrum_part(c) + along_layers(c)) + "\n";
    out += worst_table(c) + modules_table(c);
  }
  out += page::listed("In A only", names_of(c.diff.only_a), kListed) +
         page::listed("In B only", names_of(c.diff.only_b), kListed);
  out += page::listed("Shapes differ", c.diff.shapes_differ, kListed) +
         page::listed("Other tensors", c.extras, kListed) +
         page::listed("Settings", c.settings, kListed);
  return page::whole_page("Two adapters in weight space", origin, out + meanings());
}

std::string weight_blocks(const WeightComparison& c, size_t width) {
  const HeatMap experts = by_expert(c);
  return heat_map_blocks(by_module(c), width) +
         (experts.values.empty() ? "" : "\n" + heat_map_blocks(experts, width));
}

}  // namespace moelora
