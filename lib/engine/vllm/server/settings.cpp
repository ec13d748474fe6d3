#include "lib/engine/vllm/server/settings.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cctype>

namespace moelora::vllm {
namespace {

using Is = ServerOption::Kind;

constexpr std::string_view kAllToAll =
    "allgather_reducescatter naive pplx deepep_high_throughput deepep_low_latency mori nixl_ep "
    "flashinfer_all2allv flashinfer_nvlink_two_sided flashinfer_nvlink_one_sided";
constexpr std::string_view kBackends =
    "auto triton triton_unfused deep_gemm cutlass flashinfer_trtllm flashinfer_cutlass "
    "flashinfer_cutedsl marlin aiter emulation deep_gemm_mega_moe flashinfer_moe_ep_cutedsl "
    "flashinfer_moe_ep_mega_deep_gemm aiter_mega_moe";
constexpr std::string_view kQuantizations =
    "none awq awq_marlin cpu_awq bitsandbytes compressed-tensors deepspeedfp experts_int8 "
    "fbgemm_fp8 fp8 fp_quant gguf gptq gptq_marlin inc int8 modelopt modelopt_fp4 modelopt_mixed "
    "modelopt_mxfp8 moe_wna16 mxfp4 online petit_nvfp4 quark rtn torchao tpu_int8";

constexpr auto kRows = std::to_array<ServerOption>({
    {"enable-expert-parallel", "expert-parallel", Is::on_off, "experts are spread over the ranks"},
    {"fully-sharded-loras", "fully-sharded", Is::on_off, "lora_A is cut over the ranks as well"},
    {"enable-mixed-moe-lora-format", "mixed-moe-lora-format", Is::on_off,
     "per-expert and stacked adapters beside each other"},
    {"is-3d-lora-weight", "3d-lora-weight", Is::on_off,
     "in the mixed format: the adapters are stacked ones"},
    {"enable-moe-shared-loras", "moe-shared-loras", Is::on_off,
     "experts.w1/w2/w3 with shared outer factors, and nothing else"},
    {"all2all-backend", "", Is::text, "under expert parallel: allgather_reducescatter", kAllToAll},
    {"moe-backend", "", Is::text, "kernels of the experts: triton, marlin ...", kBackends},
    {"quantization", "", Is::text, "of the base: mxfp4 ...", kQuantizations},
    {"lora-dtype", "", Is::text, "auto, float16 or bfloat16", "auto float16 bfloat16", true},
    {"max-lora-cls-labels", "", Is::number, "of classification heads"},
    {"enable-batch-sharded-sampling", "", Is::on_off, "every rank samples a part of the batch"},
});

constexpr int64_t kMostRanks = 256;  // every one of them is simulated

void drop_unknown_switch(bool& on, std::string_view name, std::string_view since,
                         Settings& settings) {
  if (!on || settings.has(since)) return;
  on = false;
  settings.notes.push_back(fmt::format("vLLM {} has no --{} (since {}); taken as off",
                                       settings.version.text(), name, release(since).date));
}

// As vLLM takes it: "DeepGEMM-Mega" is "deepgemm_mega".
std::string backend_name(std::string given) {
  for (char& c : given)
    c = c == '-' ? '_' : static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return given;
}

void note_limits(Settings& settings) {
  if (std::find(kLegalRanks.begin(), kLegalRanks.end(), settings.max_rank) == kLegalRanks.end())
    settings.notes.push_back(fmt::format("vLLM takes a --max-lora-rank of {} only, not {}",
                                         fmt::join(kLegalRanks, ", "), settings.max_rank));
  if (!settings.has("0.14"))
    settings.notes.push_back(
        "before 2025-12-31 vLLM's loader changed every few weeks: that it has no expert LoRA "
        "before "
        "2025-10-21 and the order of lora_B are followed, the rest is taken as today's");
}

}  // namespace

std::span<const ServerOption> server_options() { return kRows; }

Settings make_settings(const ServerOptions& options, const ModelSpec& spec,
                       const EngineVersion& version) {
  Settings out;
  out.version = version;
  const int64_t ranks = std::max(options.tp, options.ep);
  out.tp = std::min(ranks, kMostRanks);
  if (ranks > kMostRanks)
    out.notes.push_back(fmt::format("planned for {} ranks instead of {}", kMostRanks, ranks));
  out.expert_parallel = options.on("enable-expert-parallel") || options.ep > 1;
  out.fully_sharded = options.on("fully-sharded-loras");
  out.mixed = options.on("enable-mixed-moe-lora-format");
  out.stacked_flag = options.on("is-3d-lora-weight");
  out.shared_outer = options.on("enable-moe-shared-loras");
  out.force_stacked = options.on("force-stacked");
  out.max_rank = options.max_lora_rank.value_or(kDefaultRank);
  out.slots = options.max_loras.value_or(1);
  out.all2all = options.text("all2all-backend");
  out.moe_backend = backend_name(options.text("moe-backend"));
  out.sharded_sampling = options.on("enable-batch-sharded-sampling");
  const std::string quantization = options.text("quantization");
  out.mxfp4 = quantization.empty() ? spec.hub_mxfp4 : quantization == "mxfp4";
  drop_unknown_switch(out.mixed, "enable-mixed-moe-lora-format", "0.22rc1", out);
  drop_unknown_switch(out.shared_outer, "enable-moe-shared-loras", "0.27rc0", out);
  note_limits(out);
  return out;
}

}  // namespace moelora::vllm
