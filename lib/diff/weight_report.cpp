#include "lib/diff/weight_report.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <set>

#include "lib/adapter/adapter.h"
#include "lib/adapter/adapter_file.h"
#include "lib/base/error.h"
#include "lib/base/utf8.h"
#include "lib/io/json.h"

namespace moelora {
namespace {

// ---- the comparison ----------------------------------------------------------------------------

WeightComparison::Side side_of(const std::string& path, const LoadedAdapter& loaded,
                               const Deltas& deltas) {
  return {path, loaded.layout != nullptr ? std::string(loaded.layout->id) : "dense",
          static_cast<int64_t>(deltas.size())};
}

// gate and up of an adapter can be told apart only where the row order is known; the other side is
// then brought to the same form.
void check_fused(const LoadedAdapter& loaded, const std::string& path) {
  for (const auto& [key, pair] : loaded.adapter.experts)
    if (key.projection == Projection::gate_up && !loaded.adapter.gate_up_order)
      throw Error(path, "holds gate_up factors whose row order this file does not say",
                  {"name the base model with ", Option::base});
}

std::vector<std::string> differing_extras(const Adapter& a, const Adapter& b) {
  std::vector<std::string> out;
  for (const auto& [name, extra] : a.extras) {
    const auto other = b.extras.find(name);
    if (other == b.extras.end())
      out.push_back(
          fmt::format("{} ({}) is in A only", printable(name), extra_kind_name(extra.kind)));
    else if (!identical(extra.tensor, other->second.tensor))
      out.push_back(fmt::format("{} ({}) differs", printable(name), extra_kind_name(extra.kind)));
  }
  for (const auto& [name, extra] : b.extras)
    if (a.extras.count(name) == 0)
      out.push_back(
          fmt::format("{} ({}) is in B only", printable(name), extra_kind_name(extra.kind)));
  return out;
}

void add_notes(const std::string& side, const LoadedAdapter& loaded, WeightComparison& out) {
  for (const std::string& note : loaded.notes) out.notes.push_back(side + ": " + note);
}

// ---- its reports -------------------------------------------------------------------------------

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

// The layer and the rest of a dense module's path.
std::pair<int, std::string> layer_and_name(const DeltaKey& key) {
  if (key.expert >= 0) return {key.layer, "experts." + key.module};
  constexpr std::string_view kLayers = "layers.";
  const size_t at = key.module.find(kLayers);
  if (at == std::string::npos) return {-1, key.module};
  const size_t begin = at + kLayers.size(), end = key.module.find('.', begin);
  const auto index = parse_index(std::string_view(key.module).substr(begin, end - begin));
  if (!index || end == std::string::npos) return {-1, key.module};
  return {static_cast<int>(*index), key.module.substr(end + 1)};
}

std::map<std::string, Row> rows_of(const WeightComparison& c) {
  std::map<std::string, Row> out;
  for (const Distance& d : c.diff.pairs) {
    const auto [layer, name] = layer_and_name(d.key);
    Row& row = out[name];
    if (layer >= 0) row.layers.insert(layer);
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
  return text_table(table);
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

std::string verdict(const WeightComparison& c) {
  const auto total = static_cast<int64_t>(c.diff.pairs.size());
  const int64_t identical = std::count_if(c.diff.pairs.begin(), c.diff.pairs.end(),
                                          [](const Distance& d) { return d.identical; });
  if (c.same())
    return identical == total
               ? fmt::format("same: all {} pairs are identical, bit for bit\n", total)
               : fmt::format("same: {} pairs within {:g}, {} of them identical bit for bit\n",
                             total, c.tolerance, identical);
  std::string out = fmt::format("different: {} of {} pairs are further apart than {:g}",
                                worst_first(c).size(), total, c.tolerance);
  if (c.same_up_to) out += fmt::format("\nsame up to: {}", c.same_up_to->text);
  return out + "\n";
}

Json side_json(const WeightComparison::Side& side) {
  return Json::object({{"path", side.path}, {"layout", side.layout}, {"pairs", side.pairs}});
}

Json finite(double value) { return std::isfinite(value) ? Json(value) : Json(); }

Json keys_json(const std::vector<DeltaKey>& keys) {
  std::vector<Json> out;
  for (const DeltaKey& key : keys) out.emplace_back(to_string(key));
  return Json::array(std::move(out));
}

Json modules_json(const WeightComparison& c) {
  std::vector<Json> out;
  for (const auto& [name, row] : rows_of(c))
    out.push_back(Json::object({{"module", name},
                                {"layers", ranges({row.layers.begin(), row.layers.end()})},
                                {"pairs", row.pairs},
                                {"identical", row.identical},
                                {"within", row.within},
                                {"max_distance", finite(row.worst->relative())},
                                {"min_cosine", finite(row.least_cosine)},
                                {"norm_a", finite(row.norm_a)},
                                {"norm_b", finite(row.norm_b)},
                                {"effective_rank_a", finite(row.rank_a)},
                                {"effective_rank_b", finite(row.rank_b)}}));
  return Json::array(std::move(out));
}

Json worst_json(const WeightComparison& c) {
  std::vector<Json> out;
  for (const Distance* d : worst_first(c)) {
    if (out.size() == kWorst) break;
    out.push_back(Json::object({{"pair", to_string(d->key)},
                                {"distance", finite(d->relative())},
                                {"cosine", finite(d->cosine())},
                                {"norm_a", finite(d->norm_a)},
                                {"norm_b", finite(d->norm_b)}}));
  }
  return Json::array(std::move(out));
}

}  // namespace

bool WeightComparison::same() const {
  return !diff.pairs.empty() && diff.only_a.empty() && diff.only_b.empty() &&
         diff.shapes_differ.empty() && extras.empty() &&
         std::all_of(diff.pairs.begin(), diff.pairs.end(),
                     [&](const Distance& d) { return d.relative() <= tolerance; });
}

const Distance* WeightComparison::worst() const {
  const Distance* out = nullptr;
  for (const Distance& d : diff.pairs)  // NaN is the worst of all
    if (out == nullptr || !(d.relative() <= out->relative())) out = &d;
  return out;
}

WeightComparison compare_weights(const std::string& a, const std::string& b,
                                 const CompareWeightsOptions& options) {
  const LoadedAdapter first = load_adapter(a, options), second = load_adapter(b, options);
  check_fused(first, a);
  check_fused(second, b);
  const Deltas deltas_a = deltas_of(first.adapter), deltas_b = deltas_of(second.adapter);

  WeightComparison out;
  out.a = side_of(a, first, deltas_a);
  out.b = side_of(b, second, deltas_b);
  out.tolerance = options.tolerance;
  add_notes("A", first, out);
  add_notes("B", second, out);
  out.diff = weight_distances(deltas_a, deltas_b, {options.threads, options.job});
  if (out.diff.pairs.empty() && out.diff.shapes_differ.empty())
    throw Error(
        b, fmt::format("has not one adapted module in common with {}: nothing to compare", a),
        {"give ", Option::base, ", so that both are read with the names of the same model"});
  out.extras = differing_extras(first.adapter, second.adapter);
  if (!out.same())
    out.same_up_to =
        same_up_to(first.adapter, second.adapter, out.diff, options.tolerance, options.threads);
  return out;
}

std::string weight_text(const WeightComparison& c) {
  std::string out =
      fmt::format("A  {} ({})\nB  {} ({})\n\n", c.a.path, c.a.layout, c.b.path, c.b.layout);
  out += module_rows_text(c);
  const std::string rest =
      worst_text(c) + only_text("A", c.diff.only_a) + only_text("B", c.diff.only_b);
  if (!rest.empty()) out += "\n" + rest;
  for (const std::string& text : c.diff.shapes_differ)
    out += "shapes differ: " + printable(text) + "\n";
  for (const std::string& text : c.extras) out += text + "\n";
  return out + "\n" + verdict(c);
}

std::string weight_json(const WeightComparison& c) {
  Json same_up_to;
  if (c.same_up_to)
    same_up_to = Json::object(
        {{"id", std::string(row_of(c.same_up_to->mistake).id)}, {"text", c.same_up_to->text}});
  const Distance* worst = c.worst();
  return Json::object({{"schema", "moelora.weight_diff/1"},
                       {"a", side_json(c.a)},
                       {"b", side_json(c.b)},
                       {"tolerance", c.tolerance},
                       {"same", c.same()},
                       {"pairs", static_cast<int64_t>(c.diff.pairs.size())},
                       {"max_distance", worst != nullptr ? finite(worst->relative()) : Json()},
                       {"modules", modules_json(c)},
                       {"worst", worst_json(c)},
                       {"only_a", keys_json(c.diff.only_a)},
                       {"only_b", keys_json(c.diff.only_b)},
                       {"shapes_differ", Json::strings(c.diff.shapes_differ)},
                       {"extras", Json::strings(c.extras)},
                       {"same_up_to", same_up_to},
                       {"notes", Json::strings(c.notes)}})
             .dump() +
         "\n";
}

}  // namespace moelora
