// SGLang: what its releases since the first with MoE LoRA do with an adapter (lib/engine/sglang).

#include "lib/engine/engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "lib/engine/buffers.h"
#include "lib/engine/fit/drop.h"
#include "lib/engine/fit/experts.h"
#include "lib/engine/fit/module_names.h"
#include "lib/engine/fit/scale_and_rank.h"
#include "lib/engine/sglang/kernels/expert_kernel.h"
#include "lib/engine/sglang/kernels/served_blocks.h"
#include "lib/engine/sglang/options.h"
#include "lib/engine/sglang/outcome.h"
#include "lib/engine/sglang/pool/pool.h"
#include "lib/engine/sglang/pool/pool_values.h"
#include "lib/engine/sglang/repairs.h"
#include "lib/engine/sglang/scales.h"
#include "lib/engine/sglang/server.h"

namespace moelora {
namespace {

using namespace sglang;

AdapterPlan plan_adapter(Server& server, size_t index, const PlanRequest& request) {
  server.use(index);
  AdapterPlan out;
  CpuAdapter& adapter = server.mutable_adapter(index);
  out.fates = tensor_fates(server, index);
  if (adapter.alive) {
    check_scales(adapter);
    check_kernels(server, index, request.options, request.base_config);
  }
  out.events = adapter.outcome.events.plan_events(adapter.sources);
  return out;
}

void add_notes(const ModelClass& model, const Features& features, ServerPlan& plan) {
  if (!model.facts.run_by_oracle)
    plan.notes.push_back(
        fmt::format("SGLang's class for {} was not run by the oracle: its modules are taken from "
                    "the hub's names",
                    model.family));
  if (!features.replicated_layers)
    plan.notes.push_back(
        "releases before 0.5.11 are followed by reading their code, not by running them");
}

PlanRequest plan_of(const BufferRequest& request) {
  return {
      {&request.adapter, 1}, request.spec, request.base_config, request.options, request.version};
}

// Started with the adapters, or empty and asked to load them.
void start(Server& server, const PlanRequest& request) {
  const bool empty = starts_empty(request.options);
  server.start(empty ? std::span<const ServedAdapter>() : request.adapters);
  if (empty && server.has_pool())
    for (const ServedAdapter& adapter : request.adapters) server.load(adapter);
}

ServerPlan plan_sglang(const PlanRequest& request) {
  const ModelClass model = make_model_class(request.spec, request.base_config);
  const Features features = features_of(request.version);
  Server server(model, features, launch_of(request.options));
  start(server, request);
  ServerPlan out;
  for (size_t i = 0; i < server.count(); ++i)
    out.adapters.push_back(plan_adapter(server, i, request));
  out.adapters.resize(request.adapters.size());
  out.server = server.events();
  if (!server.pools().empty())
    out.memory = plan_memory(server.pools().front(), server.launch().slots, request.base_config);
  add_notes(model, features, out);
  return out;
}

// A server that was asked for this one adapter, which it has not used yet.
Server serve(const BufferRequest& request) {
  Server server(make_model_class(request.spec, request.base_config), features_of(request.version),
                launch_of(request.options));
  start(server, plan_of(request));
  return server;
}

RankBuffers fill_sglang(const BufferRequest& request) {
  Server server = serve(request);
  if (server.count() > 0) plan_adapter(server, 0, plan_of(request));
  if (const Refusal* refusal = server.first_refusal()) return {*refusal, {}};
  return {std::nullopt,
          fill_pool(server, 0, server.pool_of(request.tp_rank), request.adapter, request.values)};
}

std::vector<ServedBlock> blocks_sglang(const BufferRequest& request, const RankBuffers& held) {
  if (held.refused) return {};
  const Server server = serve(request);
  const ExpertKernel kernel = expert_kernel(server.model(), server.features(), request.options,
                                            server.adapter(0).r, server.max_lora_rank());
  return pool_blocks(server, 0, server.pool_of(request.tp_rank), kernel, held.buffers);
}

// ---- what it is given ------------------------------------------------------------------------

bool before_stacked_experts(const FitTarget& target) { return !target.engine.has("0.5.10"); }

// A server that starts without adapters takes none to be shared outer.
bool keeps_shared_outer(const FitTarget& target) {
  const bool detected = target.shared_outer && !starts_empty(target.server);
  return target.server.flag("experts-shared-outer-loras").value_or(detected);
}

// Its virtual experts multiply up's lora_B with gate's lora_A, as gpt-oss on the default path does
// for half of its rows (facts: sglang.md 4.3, 4.4, measured).
std::string_view misreads_up(const FitTarget& target) {
  if (target.server.on("lora-use-virtual-experts")) return "under virtual experts";
  return target.spec.activation == "gpt_oss_swiglu" ? "on gpt-oss" : "";
}

bool wants_one_a(const FitTarget& target) {
  return target.spec.gated && !misreads_up(target).empty();
}

bool wants_one_shared_a(const FitTarget& target) {
  return wants_one_a(target) && keeps_shared_outer(target);
}

constexpr std::array<LayoutChoice, 5> kLayouts = {{
    {"before 0.5.10", before_stacked_experts, &layouts::peft_linear, "the one form it loads"},
    {"gpt-oss, or virtual-experts=on, with shared outer factors", wants_one_shared_a,
     &layouts::stacked_fused, "one lora_A for gate and up, written once for all experts"},
    {"shared outer factors, unless experts-shared-outer-loras=off or empty-start=on",
     keeps_shared_outer, &layouts::shared_outer, "its pool then holds each of them once"},
    {"gpt-oss, or virtual-experts=on", wants_one_a, &layouts::stacked_fused,
     "one lora_A for gate and up, which it takes for both"},
    {"else", [](const FitTarget&) { return true; }, &layouts::stacked,
     "every expert in four or six tensors a layer"},
}};

LayoutWriteOptions write_options(const FitTarget& target) {
  LayoutWriteOptions out;
  out.canonical_names = out.up_as_gate = true;
  out.shared_outer = keeps_shared_outer(target);
  return out;
}

bool holds(DropKind kind, const ModelSpec&) { return kind == DropKind::embeddings; }

// Before 0.5.11 it is right only for the rank that its pool has.
int64_t served_rank(const FitTarget& target, int64_t rank) {
  if (target.engine.has("0.5.11")) return rank;
  return std::max(rank, target.server.max_lora_rank.value_or(rank));
}

constexpr std::array<const fit::FitStep*, 11> kSteps = {
    &fit::drop_unheld,   &fit::module_names, &split_gdn,   &whole_groups,
    &fit::whole_experts, &fit::one_scale,    &fit::one_a,  &fit::one_rank,
    &wide_range,         &fit::plain_config, &added_tokens};

constexpr EngineFit kFit = {
    .layouts = kLayouts,
    .write = write_options,
    .targets = TargetStyle::suffixes,
    .steps = kSteps,
    .holds = holds,
    .misreads_up = misreads_up,
    .served_rank = served_rank,
};

constexpr BufferForm kBuffers = {
    .id = "sglang-pool",
    .names =
        "layers.{layer}.{qkv_proj\\|o_proj\\|gate_up_proj\\|gate_up_proj_moe\\|...}.{A\\|B}, "
        "{embed_tokens\\|lm_head}.{A\\|B}",
    .shapes =
        "dense A [c·R, in], B [out, R]; experts A [E, c·R, in], B [E, out, R], scaled, with E 1 "
        "for a shared outer factor; c factors stacked (q, k, v: 3), R --max-lora-rank",
};

}  // namespace

const Engine engines::sglang = {
    .id = "sglang",
    .title = "SGLang",
    .releases = sglang::kReleases,
    .newest = "0.5.18",
    .known_to = "2026-08-21",
    .options = sglang::kOptions,
    .plan = plan_sglang,
    .fill = fill_sglang,
    .blocks = blocks_sglang,
    .buffers = &kBuffers,
    .fit = &kFit,
};

}  // namespace moelora
