#include "lib/engine/peft/fit.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <map>
#include <utility>
#include <vector>

#include "lib/base/dotted_path.h"
#include "lib/base/error.h"
#include "lib/engine/fit/drop.h"
#include "lib/engine/fit/joined.h"
#include "lib/engine/fit/module_names.h"
#include "lib/engine/fit/scale_and_rank.h"
#include "lib/engine/peft/model.h"

namespace moelora::peft {
namespace {

using fit::FitContext;
using fit::most_common;
using fit::ScaleCounts;
using fit::ScaleFolder;

constexpr std::string_view kOwnParameters = "own-parameters";

Host host_for(const FitTarget& target) {
  return host_of(target.spec, target.engine.version, target.server);
}

// ---- the layout it is given ------------------------------------------------------------------

constexpr std::array<LayoutChoice, 3> kLayouts = {{
    {"transformers 4, numbered experts in hub files",
     [](const FitTarget& target) { return host_for(target).has_numbered_experts(); },
     &layouts::peft_linear, "one Linear per expert"},
    {"experts held batched", [](const FitTarget& target) { return target.spec.experts != 0; },
     &layouts::peft_params, "target_parameters; sides as this release and base have them"},
    {"else", [](const FitTarget&) { return true; }, &layouts::peft_linear, "no experts"},
}};

LayoutWriteOptions write_options(const FitTarget& target) {
  const Host host = host_for(target);
  const ExpertAxes axes = host.spec.storage(host.form()).axes;
  LayoutWriteOptions out;
  if (axes == ExpertAxes::rows) return out;  // two dims are [out, in] to every release
  const bool in_out = axes == ExpertAxes::in_out;
  out.roles = host.reads_in_out() == in_out ? Roles::natural : Roles::swapped;
  return out;
}

// ---- repairs ---------------------------------------------------------------------------------

using Group = std::vector<std::map<ExpertKey, ExpertPair>::value_type*>;

// What becomes one parameter.
std::map<ExpertKey, Group> groups(Adapter& adapter, bool joins) {
  std::map<ExpertKey, Group> out;
  for (auto& entry : adapter.experts) {
    const bool joined = joins && entry.first.projection != Projection::down;
    out[{entry.first.layer, joined ? Projection::gate_up : entry.first.projection}].push_back(
        &entry);
  }
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
  for (auto& [key, group] : groups(adapter, joins_gate_up(context.layout, &context.spec()))) {
    const ScaleCounts counts = counts_of(group, adapter.expert_count);
    if (counts.size() < 2) continue;
    const double scale = most_common(counts);
    const Scaling common = scaling_with(group, scale);
    ScaleFolder folder(scale);
    for (auto* entry : group) {
      const std::string name =
          fmt::format("{}.{}", adapter.stem(key.layer), projection_name(entry->first.projection));
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

// How a module must be named: by itself, or as a parameter, MODULE.weight.
enum class Naming : uint8_t { as_module, as_parameter, either };

class Namer {
 public:
  explicit Namer(const FitTarget& target) : host_(host_for(target)), modules_(modules_of(host_)) {}

  std::string assumed(const ServerOptions& options) const {
    return assumed_transformers(host_, options);
  }

  Naming naming_of(const std::string& module) const {
    const ExpertStorage& hub = host_.spec.hub;
    const std::string_view leaf = leaf_of(module);
    const LinearSpec* linear = host_.spec.find_linear(module);
    if (linear == nullptr) return Naming::either;
    if (host_.rewrites_targets() && (leaf == hub.gate || leaf == hub.up || leaf == hub.down))
      return Naming::as_parameter;
    const Module* here = modules_.find(host_.form() == Form::hub ? linear->hub : linear->memory);
    if (here == nullptr) return Naming::either;
    if (here->kind == Module::Kind::unsupported) return Naming::as_parameter;
    return host_.has_transformers("5") ? Naming::either : Naming::as_module;
  }

  // Whether target_modules would also find a module of this name that PEFT has no layer for.
  bool is_shared(std::string_view leaf) const {
    return std::any_of(modules_.all.begin(), modules_.all.end(), [&](const Module& module) {
      return module.kind == Module::Kind::unsupported && leaf_of(module.path) == leaf;
    });
  }

 private:
  Host host_;
  Modules modules_;
};

// Beside transformers 5 PEFT takes the names of the routed experts' projections out of
// target_modules, whatever else they name, and has no LoRA layer for classes of routers. As a
// parameter a module keeps its pair.
void name_modules(FitContext& context) {
  const Namer namer(context.target);
  if (std::string note = namer.assumed(context.target.server);
      !note.empty() && !context.adapter.experts.empty())
    context.changes.notes.push_back(std::move(note));
  std::vector<std::string> parameters, modules;
  for (auto& [module, pair] : context.adapter.dense) {
    if (namer.is_shared(leaf_of(module))) context.changes.shared_leaves.emplace(leaf_of(module));
    const Naming naming = namer.naming_of(module);
    if (naming == Naming::either || pair.parameter == (naming == Naming::as_parameter)) continue;
    pair.parameter = !pair.parameter;
    (pair.parameter ? parameters : modules).push_back(module);
  }
  if (!parameters.empty())
    context.note(kOwnParameters,
                 fmt::format("target_parameters, since PEFT takes no such module: {}",
                             fit::some_of(parameters)));
  if (!modules.empty())
    context.note(kOwnParameters, fmt::format("target_modules, as transformers 4 has them: {}",
                                             fit::some_of(modules)));
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
    kOwnParameters,
    "shared experts and dense layers whose names PEFT would take for the routed experts', and "
    "routers that are no Linear: target_parameters; on transformers 4 modules",
    name_modules};

const fit::FitStep plain_config = {
    "plain-config", "for PEFT's parameters, lora_dropout, and lora_bias that is dropped",
    make_plain};

constexpr std::array<const fit::FitStep*, 6> kSteps = {&fit::drop_unheld,    &fit::module_names,
                                                       &fit::joined_modules, &own_parameters,
                                                       &even_experts,        &plain_config};

}  // namespace

const EngineFit kFit = {.layouts = kLayouts, .write = write_options, .steps = kSteps};

}  // namespace moelora::peft
