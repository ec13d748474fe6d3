#include <fmt/format.h>

#include <algorithm>

#include "lib/adapter/adapter.h"
#include "lib/base/error.h"
#include "lib/base/utf8.h"
#include "lib/diff/weight_report.h"

namespace moelora {
namespace {

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
      throw Error(path, "holds gate_up factors whose row order this file does not tell",
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
                                 const WeightDiffOptions& options) {
  const LoadedAdapter first = load_adapter(a, options.load), second = load_adapter(b, options.load);
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

}  // namespace moelora
