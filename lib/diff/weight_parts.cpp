#include "lib/diff/weight_parts.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "lib/base/dotted_path.h"
#include "lib/base/utf8.h"

namespace moelora {

std::string place_name(const DeltaKey& key) {
  return key.expert >= 0 ? "experts." + key.module : std::string(below_layer(key.module));
}

int place_layer(const DeltaKey& key) {
  const auto place = find_layer(key.module);
  return place ? place->layer : key.layer;
}

std::map<std::string, ModuleDistance> modules_of(const WeightComparison& c) {
  std::map<std::string, ModuleDistance> out;
  for (const Distance& d : c.diff.pairs) {
    ModuleDistance& row = out[place_name(d.key)];
    if (const int layer = place_layer(d.key); layer >= 0) row.layers.insert(layer);
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

namespace {

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

}  // namespace

std::string verdict_text(const WeightComparison& c) {
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

}  // namespace moelora
