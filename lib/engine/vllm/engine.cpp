// vLLM: how its LoRA manager loads an adapter. The steps are in lib/engine/vllm, one file each.

#include "lib/engine/engine.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>

#include "lib/base/dotted_path.h"
#include "lib/engine/buffers.h"
#include "lib/engine/fit/drop.h"
#include "lib/engine/fit/experts.h"
#include "lib/engine/fit/joined.h"
#include "lib/engine/fit/module_names.h"
#include "lib/engine/fit/scale_and_rank.h"
#include "lib/engine/vllm/causes.h"
#include "lib/engine/vllm/plan/plan.h"
#include "lib/engine/vllm/releases.h"
#include "lib/engine/vllm/server/model_class.h"
#include "lib/engine/vllm/server/module_buffers.h"
#include "lib/engine/vllm/server/settings.h"

namespace moelora {
namespace {

// What the user said, and the defaults that the plan stands on. is-3d-lora-weight is said of an
// adapter, not of the server.
std::string launch_text(const vllm::Settings& settings, const ServerOptions& given) {
  std::string out = fmt::format("--enable-lora --max-lora-rank {} --max-loras {}",
                                settings.max_rank, settings.slots);
  if (settings.tp > 1) out += fmt::format(" --tensor-parallel-size {}", settings.tp);
  if (settings.expert_parallel) out += " --enable-expert-parallel";
  return out + flags_text(given, {"enable-expert-parallel", "is-3d-lora-weight", "force-stacked"});
}

ServerPlan plan(const PlanRequest& request) {
  ServerPlan out;
  out.not_known = vllm::class_not_known(request);
  if (!out.not_known.empty()) return out;
  const vllm::Server server = vllm::make_server(request);
  out.launch = launch_text(server.settings, request.options);
  out.server = server.events;
  out.notes = server.settings.notes;
  if (const auto& releases = server.model.read_in; !releases.empty())
    out.notes.push_back(
        fmt::format("vLLM's {} was not run by the oracle: what it takes was read in its source of "
                    "{} to {}",
                    server.model.name, releases.front(), releases.back()));
  for (std::string& note : notes_of_unknown_values(request.options, engines::vllm))
    out.notes.push_back(std::move(note));
  for (const ServedAdapter& adapter : request.adapters)
    out.adapters.push_back(vllm::plan_adapter(server, adapter));
  out.memory = vllm::memory_plan(server, request);
  return out;
}

// ---- what it is given ------------------------------------------------------------------------

bool is_stacked_class(const FitTarget& target) {
  const auto model = vllm::find_model_class(target.spec, target.engine.version);
  return model && model->stacked;
}

constexpr std::array<LayoutChoice, 4> kLayouts = {{
    {"moe-shared-loras=on",
     [](const FitTarget& target) { return target.server.on("enable-moe-shared-loras"); },
     &layouts::shared_outer, "the one form it loads"},
    {"mixed-moe-lora-format=on",
     [](const FitTarget& target) { return target.server.on("enable-mixed-moe-lora-format"); },
     &layouts::peft_linear, "read alike whether or not the adapter is declared 3-D"},
    {"classes with 3-D experts (gpt-oss, Qwen3-VL, Qwen3.5, Qwen3-Omni)", is_stacked_class,
     &layouts::peft_params, "the one form it loads"},
    {"else", [](const FitTarget&) { return true; }, &layouts::peft_linear,
     "the one form it loads, in the class's own words"},
}};

LayoutWriteOptions write_options(const FitTarget& target) {
  LayoutWriteOptions out;
  const auto model = vllm::find_model_class(target.spec, target.engine.version);
  if (!target.engine.has("0.14")) out.b_order = BOrder::expert_major;
  out.short_names = model && model->expert_names.gate == "w1";
  return out;
}

bool holds(DropKind kind, const FitTarget& target) {
  const auto model = vllm::find_model_class(target.spec, target.engine.version);
  return kind == DropKind::router || kind == DropKind::vision ||  // its plan knows the towers
         (kind == DropKind::embeddings && (!model || model->embeddings || model->lm_head));
}

// A multiple of tp where lora_A is cut by it.
int64_t served_rank(const FitTarget& target, int64_t rank) {
  const int64_t parts = target.server.on("fully-sharded-loras") ? target.server.tp : 1;
  return (rank + parts - 1) / parts * parts;
}

Hint advice(const PlanEvent& event) {
  if (event.cause == &vllm::cause::class_without_lora)
    return "merge the adapter into the base model and serve that";
  if (event.cause != &vllm::cause::tensor_loader) return {};
  return {"leave ", Option::max_shard_size, " out: it reads one file"};
}

// A class finds its modules by mapping the hub's names. Where it maps transformers' to others
// (Inkling, whose checkpoint has wq_du for q_proj; the thinker of Qwen3-Omni), it finds nothing by
// these.
std::map<std::string, std::string> hub_names(const FitTarget& target) {
  std::map<std::string, std::string> out;
  const auto model = vllm::find_model_class(target.spec, target.engine.version);
  if (!model) return out;
  const auto root = [&](const std::string& name) {
    const std::string mapped = model->names.map(name + ".");
    return mapped.substr(0, mapped.find("layers."));
  };
  // Where the layers have one place the layouts' own names are right.
  const auto layered = std::find_if(target.spec.linears.begin(), target.spec.linears.end(),
                                    [](const LinearSpec& linear) { return linear.layer >= 0; });
  if (layered == target.spec.linears.end() || root(layered->memory) == root(layered->hub))
    return out;
  const auto add = [&](const std::string& memory, const std::string& hub) {
    if (model->names.map(memory + ".") != model->names.map(hub + ".")) out.emplace(memory, hub);
  };
  for (const LinearSpec& linear : target.spec.linears) add(linear.memory, linear.hub);
  for (int layer = 0; layer < target.spec.layers; ++layer)
    if (target.spec.is_moe(layer))
      add(target.spec.expert_stem(Form::memory, layer), target.spec.expert_stem(Form::hub, layer));
  return out;
}

// A class may take LoRA on the parts alone of what is one Linear of the base (GLM-4). What is in
// one form alone it has as the hub.
void join_or_split(fit::FitContext& context) {
  const auto model = vllm::find_model_class(context.spec(), context.target.engine.version);
  const auto splits = [&](const JoinedModule& module) {
    return model && std::find(model->split.begin(), model->split.end(), leaf_of(module.module)) !=
                        model->split.end();
  };
  fit::join_or_part(context, [&](const JoinedModule& module) {
    if (splits(module)) return Joining::parted;
    return module.in_hub == module.in_memory ? fit::joining_of(module, context)
                                             : joining_of(module, Form::hub);
  });
}

const fit::FitStep joined_or_split = {fit::kJoinedName, fit::kJoinedSummary, join_or_split, true};

constexpr std::array<const fit::FitStep*, 8> kSteps = {
    &fit::drop_unheld, &fit::module_names, &joined_or_split, &fit::whole_experts,
    &fit::one_scale,   &fit::one_a,        &fit::one_rank,   &fit::plain_config};

constexpr EngineFit kFit = {
    .layouts = kLayouts,
    .write = write_options,
    .steps = kSteps,
    .holds = holds,
    .served_rank = served_rank,
    .legal_ranks = vllm::kLegalRanks,
    .default_rank = vllm::kDefaultRank,
    .hub_names = hub_names,
    .advice = advice,
};

constexpr BufferForm kBuffers = {
    .id = "vllm-stacked",
    .names = "{module}.{lora_a_stacked\\|lora_b_stacked\\|...}.{i}",
    .shapes =
        "dense A [R, in], B [out, R], of embed_tokens A [V, R]; experts A [E, R, in], B [E, out, "
        "R], with E 1 for a shared outer factor; B scaled; R --max-lora-rank",
};

}  // namespace

const Engine engines::vllm = {
    .id = "vllm",
    .title = "vLLM",
    .releases = vllm::kReleases,
    .newest = vllm::kReleases.back().version,
    .known_to = vllm::kReleases.back().date,
    .options = vllm::server_options,
    .plan = plan,
    .fill = vllm::fill,
    .blocks = vllm::blocks,
    .buffers = &kBuffers,
    .fit = &kFit,
};

}  // namespace moelora
