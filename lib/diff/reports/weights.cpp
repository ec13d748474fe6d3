#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "lib/base/dotted_path.h"
#include "lib/base/utf8.h"
#include "lib/compare/weight_distance.h"
#include "lib/diff/weight_comparison.h"
#include "lib/io/json_build.h"

namespace moelora {
namespace {

constexpr size_t kWorst = 10;

// Modules of one name: "self_attn.q_proj", "experts.gate_proj".
struct Row {
  std::set<int> layers;
  int64_t pairs = 0, identical = 0, within = 0;
  const Distance* worst = nullptr;
  double norm_a = 0, norm_b = 0;  // root of the sum of squares
  double rank_a = 0, rank_b = 0;  // means
  double least_cosine = 1;
};

std::string name_of(const DeltaKey& key) {
  return key.expert >= 0 ? "experts." + key.module : std::string(below_layer(key.module));
}

int layer_of(const DeltaKey& key) {  // -1 outside the layers
  const auto place = find_layer(key.module);
  return place ? place->layer : key.layer;
}

std::map<std::string, Row> rows_of(const WeightComparison& c) {
  std::map<std::string, Row> out;
  for (const Distance& d : c.diff.pairs) {
    Row& row = out[name_of(d.key)];
    if (const int layer = layer_of(d.key); layer >= 0) row.layers.insert(layer);
    ++row.pairs;
    row.identical += d.identical ? 1 : 0;
    row.within += d.relative() <= c.tolerance ? 1 : 0;
    if (row.worst == nullptr || !(d.relative() <= row.worst->relative())) row.worst = &d;
    row.norm_a = std::hypot(row.norm_a, d.norm_a);
    row.norm_b = std::hypot(row.norm_b, d.norm_b);
    row.rank_a += d.effective_rank_a;
    row.rank_b += d.effective_rank_b;
    row.least_cosine = std::min(row.least_cosine, d.cosine());
  }
  for (auto& entry : out) {
    entry.second.rank_a /= static_cast<double>(entry.second.pairs);
    entry.second.rank_b /= static_cast<double>(entry.second.pairs);
  }
  return out;
}

std::string number(double value) { return fmt::format("{:.4g}", value); }

std::string module_rows_text(const WeightComparison& c) {
  std::vector<std::vector<std::string>> table{{"module", "layers", "pairs", "identical", "distance",
                                               "cosine", "norm A", "norm B", "rank A", "rank B"}};
  for (const auto& [name, row] : rows_of(c))
    table.push_back({printable(name), ranges({row.layers.begin(), row.layers.end()}),
                     std::to_string(row.pairs), std::to_string(row.identical),
                     number(row.worst->relative()), fmt::format("{:.6f}", row.least_cosine),
                     number(row.norm_a), number(row.norm_b), fmt::format("{:.1f}", row.rank_a),
                     fmt::format("{:.1f}", row.rank_b)});
  return text_table(std::move(table));
}

std::vector<const Distance*> worst_first(const WeightComparison& c) {
  std::vector<const Distance*> out;
  for (const Distance& d : c.diff.pairs)
    if (!(d.relative() <= c.tolerance)) out.push_back(&d);
  std::stable_sort(out.begin(), out.end(), [](const Distance* x, const Distance* y) {
    const bool nan_x = std::isnan(x->relative()), nan_y = std::isnan(y->relative());
    return nan_x != nan_y ? nan_x : x->relative() > y->relative();
  });
  return out;
}

std::string worst_text(const WeightComparison& c) {
  const auto list = worst_first(c);
  if (list.empty()) return "";
  std::string out = "worst:\n";
  for (size_t i = 0; i < std::min(list.size(), kWorst); ++i)
    out += fmt::format("  {}: distance {}, cosine {:.6f}\n", printable(to_string(list[i]->key)),
                       number(list[i]->relative()), list[i]->cosine());
  if (list.size() > kWorst) out += fmt::format("  and {} more\n", list.size() - kWorst);
  return out;
}

std::string only_text(std::string_view side, const std::vector<DeltaKey>& keys) {
  if (keys.empty()) return "";
  std::string out = fmt::format("in {} only: {}", side, printable(to_string(keys.front())));
  return out + (keys.size() > 1 ? fmt::format(" and {} more\n", keys.size() - 1) : "\n");
}

std::string counted(size_t count, std::string_view noun) {
  return fmt::format("{} {}{}", count, noun, count == 1 ? "" : "s");
}

// What makes them different, each kind that there is.
std::string differences(const WeightComparison& c) {
  std::vector<std::string> out;
  if (const size_t apart = worst_first(c).size(); apart > 0)
    out.push_back(fmt::format("{} of {} pairs are further apart than {:g}", apart,
                              c.diff.pairs.size(), c.tolerance));
  if (!c.diff.only_a.empty()) out.push_back(counted(c.diff.only_a.size(), "pair") + " in A only");
  if (!c.diff.only_b.empty()) out.push_back(counted(c.diff.only_b.size(), "pair") + " in B only");
  if (!c.diff.shapes_differ.empty())
    out.push_back(counted(c.diff.shapes_differ.size(), "pair") + " of other shapes");
  if (!c.extras.empty()) out.push_back(counted(c.extras.size(), "other tensor") + " not the same");
  if (!c.settings.empty()) out.push_back(counted(c.settings.size(), "setting") + " not the same");
  return fmt::format("{}", fmt::join(out, "; "));
}

std::string verdict(const WeightComparison& c) {
  const auto total = static_cast<int64_t>(c.diff.pairs.size());
  const int64_t identical = std::count_if(c.diff.pairs.begin(), c.diff.pairs.end(),
                                          [](const Distance& d) { return d.identical; });
  if (c.same())
    return identical == total
               ? fmt::format("same: all {} pairs are identical, bit for bit\n", total)
               : fmt::format("same: {} pairs within {:g}, {} of them identical bit for bit\n",
                             total, c.tolerance, identical);
  std::string out = "different: " + differences(c);
  if (c.same_up_to) out += "\nsame up to: " + printable(c.same_up_to->text, kLongestLine);
  return out + "\n";
}

Json side_json(const WeightComparison::Side& side) {
  return Json::object({{"path", side.path}, {"layout", side.layout}, {"pairs", side.pairs}});
}

Json finite(double value) { return std::isfinite(value) ? Json(value) : Json(); }

Json key_json(const DeltaKey& key) { return to_string(key); }

Json module_json(const std::pair<const std::string, Row>& entry) {
  const Row& row = entry.second;
  return Json::object({{"module", entry.first},
                       {"layers", ranges({row.layers.begin(), row.layers.end()})},
                       {"pairs", row.pairs},
                       {"identical", row.identical},
                       {"within", row.within},
                       {"max_distance", finite(row.worst->relative())},
                       {"min_cosine", finite(row.least_cosine)},
                       {"norm_a", finite(row.norm_a)},
                       {"norm_b", finite(row.norm_b)},
                       {"effective_rank_a", finite(row.rank_a)},
                       {"effective_rank_b", finite(row.rank_b)}});
}

Json pair_json(const Distance* d) {
  return Json::object({{"pair", to_string(d->key)},
                       {"distance", finite(d->relative())},
                       {"cosine", finite(d->cosine())},
                       {"norm_a", finite(d->norm_a)},
                       {"norm_b", finite(d->norm_b)}});
}

}  // namespace

std::string weight_text(const WeightComparison& c) {
  std::string out = fmt::format("A  {} ({})\nB  {} ({})\n\n", printable(c.a.path), c.a.layout,
                                printable(c.b.path), c.b.layout);
  out += module_rows_text(c);
  const std::string rest =
      worst_text(c) + only_text("A", c.diff.only_a) + only_text("B", c.diff.only_b);
  if (!rest.empty()) out += "\n" + rest;
  for (const std::string& text : c.diff.shapes_differ)
    out += "shapes differ: " + printable(text) + "\n";
  for (const std::string& text : c.extras) out += printable(text, kLongestLine) + "\n";
  for (const std::string& text : c.settings) out += text + "\n";
  return out + "\n" + verdict(c);
}

std::string weight_json(const WeightComparison& c) {
  Json same_up_to;
  if (c.same_up_to)
    same_up_to = Json::object(
        {{"id", std::string(row_of(c.same_up_to->mistake).id)}, {"text", c.same_up_to->text}});
  const Distance* furthest = c.worst();
  std::vector<const Distance*> worst = worst_first(c);
  worst.resize(std::min(worst.size(), kWorst));
  return Json::object(
             {{"schema", "moelora.weight_diff/1"},
              {"a", side_json(c.a)},
              {"b", side_json(c.b)},
              {"tolerance", c.tolerance},
              {"same", c.same()},
              {"pairs", json_count(c.diff.pairs.size())},
              {"max_distance", furthest != nullptr ? finite(furthest->relative()) : Json()},
              {"modules", json_list(rows_of(c), module_json)},
              {"worst", json_list(worst, pair_json)},
              {"only_a", json_list(c.diff.only_a, key_json)},
              {"only_b", json_list(c.diff.only_b, key_json)},
              {"shapes_differ", Json::strings(c.diff.shapes_differ)},
              {"extras", Json::strings(c.extras)},
              {"settings", Json::strings(c.settings)},
              {"same_up_to", same_up_to},
              {"notes", Json::strings(c.notes)}})
             .dump() +
         "\n";
}

}  // namespace moelora
