#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "lib/base/utf8.h"
#include "lib/diff/weight_parts.h"
#include "lib/io/json_build.h"

namespace moelora {
namespace {

constexpr size_t kWorst = 10;

std::string number(double value) { return fmt::format("{:.4g}", value); }

std::string module_rows_text(const WeightComparison& c) {
  std::vector<std::vector<std::string>> table{{"module", "layers", "pairs", "identical", "distance",
                                               "cosine", "norm A", "norm B", "rank A", "rank B"}};
  for (const auto& [name, row] : modules_of(c))
    table.push_back({printable(name), ranges({row.layers.begin(), row.layers.end()}),
                     std::to_string(row.pairs), std::to_string(row.identical),
                     number(row.worst->relative()), fmt::format("{:.6f}", row.least_cosine),
                     number(row.norm_a), number(row.norm_b), fmt::format("{:.1f}", row.rank_a),
                     fmt::format("{:.1f}", row.rank_b)});
  return text_table(std::move(table));
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

Json side_json(const WeightComparison::Side& side) {
  return Json::object({{"path", side.path}, {"layout", side.layout}, {"pairs", side.pairs}});
}

Json finite(double value) { return std::isfinite(value) ? Json(value) : Json(); }

Json key_json(const DeltaKey& key) { return to_string(key); }

Json module_json(const std::pair<const std::string, ModuleDistance>& entry) {
  const ModuleDistance& row = entry.second;
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
  return out + "\n" + verdict_text(c);
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
              {"modules", json_list(modules_of(c), module_json)},
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
