// PEFT itself: what PeftModel.from_pretrained() makes of an adapter (plan.h), and how one is made
// fit for it.

#include "lib/engine/engine.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <map>
#include <utility>
#include <vector>

#include "lib/base/dotted_path.h"
#include "lib/base/error.h"
#include "lib/engine/fit/drop.h"
#include "lib/engine/fit/module_names.h"
#include "lib/engine/fit/scale_and_rank.h"
#include "lib/engine/peft/peft.h"
#include "lib/engine/peft/plan.h"

namespace moelora {
namespace {

using fit::FitContext;
using fit::most_common;
using fit::ScaleCounts;
using fit::ScaleFolder;

constexpr std::array<Release, 8> kReleases = {{{"0.17", "2025-08-01"},
                                               {"0.18", "2025-11-13"},
                                               {"0.19.0", "2026-04-14"},
                                               {"0.19.1", "2026-04-16"},
                                               {"0.20", "2026-07-28"},
                                               {"0.21", "2026-09-15"},
                                               {"0.21.1", "2026-09-29"},
                                               {"0.21.2", "2026-10-01"}}};

constexpr std::array<ServerOption, 1> kOptions = {
    {{"transformers", "", ServerOption::Kind::text,
      "the release of transformers beside it: 4.57, 5.5, 5.24 ... (default: of its time)"}}};

// ---- the layout it is given ------------------------------------------------------------------

// PEFT adapts what transformers holds: 4.x numbered Linears, where the hub has them; 5 parameters.
bool is_before_transformers_5(const FitTarget& target) {
  return !target.engine.has("0.19.0") && target.spec.hub.numbered;
}

constexpr std::array<LayoutChoice, 3> kLayouts = {{
    {"before 0.19, numbered experts in hub files", is_before_transformers_5, &layouts::peft_linear,
     "transformers 4 holds one Linear per expert"},
    {"experts that transformers 5 holds batched",
     [](const FitTarget& target) { return !target.spec.memory.numbered; }, &layouts::peft_params,
     "sides as this release and base have them"},
    {"else", [](const FitTarget&) { return true; }, &layouts::peft_linear, "one Linear per expert"},
}};

LayoutWriteOptions write_options(const FitTarget& target) {
  LayoutWriteOptions out;
  out.roles = peft_roles(target.spec, target.engine);
  return out;
}

// ---- repairs ---------------------------------------------------------------------------------

using Group = std::vector<std::map<ExpertKey, ExpertPair>::value_type*>;

// By layer: what becomes one parameter.
std::map<std::pair<int, bool>, Group> groups(Adapter& adapter) {
  std::map<std::pair<int, bool>, Group> out;
  for (auto& entry : adapter.experts)
    out[{entry.first.layer, entry.first.projection == Projection::down}].push_back(&entry);
  return out;
}

ScaleCounts counts_of(const Group& group, int64_t experts) {
  ScaleCounts out;
  for (const auto* entry : group)
    for (int64_t e = 0; e < experts; ++e)
      if (entry->second.a.has(e)) ++out[entry->second.scaling_of(e).value()];
  return out;
}

// One of the group's scalings that has this value: alpha and r as the config will say them.
Scaling scaling_with(const Group& group, double value) {
  for (const auto* entry : group)
    for (const Scaling& scaling : entry->second.scaling)
      if (scaling.value() == value) return scaling;
  return group.front()->second.scaling.front();
}

void even_scales(FitContext& context) {
  Adapter& adapter = context.adapter;
  if (!context.layout.one_parameter) return;
  for (auto& [key, group] : groups(adapter)) {
    const ScaleCounts counts = counts_of(group, adapter.expert_count);
    if (counts.size() < 2) continue;
    const double scale = most_common(counts);
    const Scaling common = scaling_with(group, scale);
    ScaleFolder folder(scale);
    for (auto* entry : group) {
      const std::string name =
          fmt::format("{}.{}", adapter.stem(key.first), projection_name(entry->first.projection));
      folder.fold(name, entry->second, adapter.expert_count);
      entry->second.scaling = {common.with_rank(max_rank(entry->second))};
    }
    context.note("even-experts",
                 fmt::format("the experts of a parameter have one scale, {}: lora_B "
                             "scaled by {}",
                             scale, folder.text()));
  }
}

[[noreturn]] void refuse_beside_parameters(const AdapterConfig& config, std::string_view key) {
  throw Error(
      config.where,
      fmt::format("PEFT refuses \"{}\" beside target_parameters, which its experts become", key),
      "train without it; PEFT 0.18 beside transformers 4 takes it");
}

// Beside transformers 5 it takes the names of the routed experts' projections out of
// target_modules, whatever else they name; as a parameter, MODULE.weight, a module keeps them.
bool takes_targets(const FitTarget& target) {
  return target.engine.has("0.19.0") && target.spec.peft.converts &&
         is_fused_in_memory(target.spec);
}

void name_as_parameters(FitContext& context) {
  if (!takes_targets(context.target)) return;
  const ExpertStorage& hub = context.spec().hub;
  std::vector<std::string> named;
  for (auto& [module, pair] : context.adapter.dense) {
    const std::string_view leaf = leaf_of(module);
    if (pair.parameter || (leaf != hub.gate && leaf != hub.up && leaf != hub.down)) continue;
    pair.parameter = true;
    named.push_back(module + ".weight");
  }
  if (!named.empty())
    context.note("own-parameters",
                 fmt::format("target_parameters, since PEFT takes the experts' names out of "
                             "target_modules: {}",
                             fit::some_of(named)));
}

bool has_parameters(const FitContext& context) {
  if (context.layout.one_parameter && !context.adapter.experts.empty()) return true;
  return std::any_of(context.adapter.dense.begin(), context.adapter.dense.end(),
                     [](const auto& entry) { return entry.second.parameter; });
}

// PEFT's ParamWrapper refuses DoRA, biases and dropout; the last counts in training only.
void make_plain(FitContext& context) {
  const AdapterConfig& config = context.adapter.config;
  if (!has_parameters(context)) return;
  if (config.use_dora) refuse_beside_parameters(config, "use_dora");
  std::vector<std::pair<std::string_view, Json>> changes;
  if (config.lora_bias) {
    if (!context.drops(DropKind::bias)) refuse_beside_parameters(config, "lora_bias");
    changes.emplace_back("lora_bias", false);
  }
  const Json* dropout = config.json.find("lora_dropout");
  if (dropout != nullptr && dropout->is_number() && dropout->as_double() != 0)
    changes.emplace_back("lora_dropout", 0.0);
  fit::set_config(context, "plain-config", std::move(changes));
}

const fit::FitStep even_experts = {
    "even-experts",
    "experts of one parameter with scales of their own: the most common one, what differs from it "
    "goes into lora_B",
    even_scales};

const fit::FitStep own_parameters = {
    "own-parameters",
    "shared experts and dense layers whose names PEFT would take for the routed experts': "
    "target_parameters",
    name_as_parameters};

const fit::FitStep plain_config = {
    "plain-config", "for PEFT's parameters, lora_dropout, and lora_bias that is dropped",
    make_plain};

constexpr std::array<const fit::FitStep*, 5> kSteps = {
    &fit::drop_unheld, &fit::module_names, &own_parameters, &even_experts, &plain_config};

constexpr EngineFit kFit = {.layouts = kLayouts, .write = write_options, .steps = kSteps};

}  // namespace

bool is_fused_in_memory(const ModelSpec& spec) {
  return spec.hub.numbered && !spec.memory.numbered && !spec.peft.numbered;
}

Roles peft_roles(const ModelSpec& spec, const EngineChoice& peft) {
  const bool in_out = spec.memory.axes == ExpertAxes::in_out;
  bool transposed = false;  // read as [E, out, in]
  if (peft.has("0.19.1"))
    transposed = !spec.peft.is_transposed;
  else if (peft.has("0.19.0"))
    transposed = spec.peft.is_transposed;
  return transposed == in_out ? Roles::swapped : Roles::natural;
}

std::string release_of(const std::string& peft_version) {
  std::string out = peft_version.substr(0, peft_version.find_first_not_of("0123456789."));
  while (out.ends_with('.')) out.pop_back();
  return EngineVersion::parse(out) ? out : "";
}

const Engine engines::peft = {
    .id = "peft",
    .title = "PEFT",
    .releases = kReleases,
    .newest = "0.21.2",
    .known_to = "2026-11-28",
    .options = [] { return std::span<const ServerOption>(kOptions); },
    .plan = peft::plan,
    .fit = &kFit,
};

}  // namespace moelora
