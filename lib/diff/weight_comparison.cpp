#include "lib/diff/weight_comparison.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>

#include "lib/adapter/adapter_file.h"
#include "lib/base/parallel.h"
#include "lib/base/utf8.h"
#include "lib/engine/variants.h"
#include "lib/io/input_watch.h"

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
      throw Error(path,
                  "holds gate_up factors and does not say how the rows of gate and up are ordered",
                  {"name the base model with ", Option::base});
}

std::vector<std::string> differing_extras(const Adapter& a, const Adapter& b) {
  std::vector<std::string> out;
  const auto add = [&](const std::string& name, const Extra& extra, std::string_view what) {
    out.push_back(fmt::format("{} ({}) {}", printable(name), extra_kind_name(extra.kind), what));
  };
  for (const auto& [name, extra] : a.extras) {
    const auto other = b.extras.find(name);
    if (other == b.extras.end())
      add(name, extra, "is in A only");
    else if (!identical(extra.tensor, other->second.tensor))
      add(name, extra, "differs");
  }
  for (const auto& [name, extra] : b.extras)
    if (a.extras.count(name) == 0) add(name, extra, "is in B only");
  return out;
}

std::string setting_text(const Json& config, std::string_view key) {
  const Json* value = config.find(key);
  return value == nullptr ? "not set" : printable(value->dump(-1), 80);
}

std::vector<std::string> differing_settings(const Json& a, const Json& b) {
  std::vector<std::string> out;
  const auto compare = [&](std::string_view key, bool on_a, bool on_b) {
    const std::string in_a = setting_text(a, key), in_b = setting_text(b, key);
    if (on_a != on_b || (on_a && in_a != in_b))
      out.push_back(fmt::format("\"{}\" is {} in A and {} in B", key, in_a, in_b));
  };
  const auto is_true = [](const Json& config, std::string_view key) {
    const Json* value = config.find(key);
    return value != nullptr && value->is(Json::Kind::boolean) && value->as_bool();
  };
  compare("use_dora", is_true(a, "use_dora"), is_true(b, "use_dora"));
  for (const Variant& variant : all_variants())
    if (!variant.training_only) compare(variant.key, variant.is_on(a), variant.is_on(b));
  return out;
}

void add_notes(const std::string& side, const LoadedAdapter& loaded, WeightComparison& out) {
  for (const std::string& note : loaded.notes) out.notes.push_back(side + ": " + note);
}

}  // namespace

bool WeightComparison::same() const {
  return !diff.pairs.empty() && diff.only_a.empty() && diff.only_b.empty() &&
         diff.shapes_differ.empty() && extras.empty() && settings.empty() &&
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
  InputWatch watch;
  std::array<LoadedAdapter, 2> loaded;
  std::array<Deltas, 2> deltas;
  parallel_for(2, options.threads, [&](int64_t i, int) {
    const InputWatch::Here here(watch);
    const auto side = static_cast<size_t>(i);
    const std::string& path = i == 0 ? a : b;
    loaded[side] = load_adapter(path, options);
    check_fused(loaded[side], path);
    deltas[side] = deltas_of(loaded[side].adapter);
  });
  const auto& [first, second] = loaded;
  const auto& [deltas_a, deltas_b] = deltas;

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
  out.settings = differing_settings(first.adapter.config.json, second.adapter.config.json);
  if (!out.same())
    out.same_up_to =
        same_up_to(first.adapter, second.adapter, out.diff, options.tolerance, options.threads);
  const Distance* worst = out.worst();
  if (options.spectrum && worst != nullptr && !worst->identical)
    out.spectrum = spectrum_of(worst->key, deltas_a.at(worst->key), deltas_b.at(worst->key));
  watch.check();
  return out;
}

}  // namespace moelora
