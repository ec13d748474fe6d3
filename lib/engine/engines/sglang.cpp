// SGLang: what its releases since the first with MoE LoRA do with an adapter (lib/engine/sglang).

#include <fmt/format.h>

#include <array>

#include "lib/engine/buffers.h"
#include "lib/engine/engine.h"
#include "lib/engine/sglang/fates.h"
#include "lib/engine/sglang/kernels/blocks.h"
#include "lib/engine/sglang/kernels/fill.h"
#include "lib/engine/sglang/options.h"
#include "lib/engine/sglang/pool/memory.h"
#include "lib/engine/sglang/scales.h"
#include "lib/engine/sglang/server.h"

namespace moelora {
namespace {

using namespace sglang;

AdapterPlan plan_adapter(Server& server, size_t index, const PlanRequest& request) {
  server.use(index);
  AdapterPlan out;
  CpuAdapter& adapter = server.mutable_adapter(index);
  out.fates = judge_fates(server, index);
  if (adapter.alive) {
    judge_scales(adapter);
    judge_options(server, index, request.options, request.base_config);
  }
  out.events = adapter.journal.events(adapter.sources);
  return out;
}

void add_notes(const ModelClass& model, const Features& features, ServerPlan& plan) {
  if (!is_proven_class(model.family))
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
  PoolValues values(server.adapter(0), request.adapter, request.values);
  return {std::nullopt, fill_pool(server, 0, server.pool_of(request.tp_rank), values)};
}

std::vector<ServedBlock> blocks_sglang(const BufferRequest& request, const RankBuffers& held) {
  if (held.refused) return {};
  const Server server = serve(request);
  const ExpertKernel kernel = expert_kernel(server.model(), server.features(), request.options,
                                            server.adapter(0).r, server.max_lora_rank());
  return pool_blocks(server, 0, server.pool_of(request.tp_rank), kernel, held.buffers);
}

}  // namespace

extern const Engine sglang_engine;
const Engine sglang_engine = {
    .id = "sglang",
    .title = "SGLang",
    .releases = sglang::kReleases,
    .newest = "0.5.18",
    .known_to = "2026-08-21",
    .options = sglang::kOptions,
    .plan = plan_sglang,
    .fill = fill_sglang,
    .blocks = blocks_sglang,
};

}  // namespace moelora
