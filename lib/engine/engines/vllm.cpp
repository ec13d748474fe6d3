// vLLM: how its LoRA manager loads an adapter. The steps are in lib/engine/vllm, one file each.

#include <array>

#include "lib/engine/engine.h"
#include "lib/engine/vllm/plan/blocks.h"
#include "lib/engine/vllm/plan/fill.h"
#include "lib/engine/vllm/plan/plan.h"
#include "lib/engine/vllm/releases.h"
#include "lib/engine/vllm/server/memory.h"

namespace moelora {
namespace {

using Is = ServerOption::Kind;

constexpr std::array<ServerOption, 9> kOptions = {{
    {"enable-expert-parallel", "expert-parallel", Is::on_off, "experts are spread over the ranks"},
    {"fully-sharded-loras", "fully-sharded", Is::on_off, "lora_A is cut over the ranks as well"},
    {"enable-mixed-moe-lora-format", "mixed-moe-lora-format", Is::on_off,
     "per-expert and stacked adapters beside each other"},
    {"is-3d-lora-weight", "3d-lora-weight", Is::on_off,
     "in the mixed format: the adapters are stacked ones"},
    {"enable-moe-shared-loras", "moe-shared-loras", Is::on_off,
     "experts.w1/w2/w3 with shared outer factors, and nothing else"},
    {"all2all-backend", "", Is::text, "under expert parallel: allgather_reducescatter"},
    {"moe-backend", "", Is::text, "of an MXFP4 base: triton or marlin"},
    {"quantization", "", Is::text, "of the base: mxfp4 ..."},
    {"lora-dtype", "", Is::text, "auto, float16 or bfloat16"},
}};

ServerPlan plan(const PlanRequest& request) {
  const vllm::Server server =
      vllm::make_server(request.spec, request.base_config,
                        vllm::make_settings(request.options, request.spec, request.version));
  ServerPlan out;
  out.server = server.events;
  out.notes = server.settings.notes;
  for (const ServedAdapter& adapter : request.adapters)
    out.adapters.push_back(vllm::plan_adapter(server, adapter));
  out.memory = vllm::memory_plan(server, request.base_config, request.options);
  return out;
}

}  // namespace

extern const Engine vllm_engine;
const Engine vllm_engine = {
    .id = "vllm",
    .title = "vLLM",
    .releases = vllm::kReleases,
    .newest = "0.27",
    .known_to = "2026-10-03",
    .options = kOptions,
    .plan = plan,
    .fill = vllm::fill,
    .blocks = vllm::blocks,
};

}  // namespace moelora
