#include "lib/engine/sglang/options.h"

#include <array>

namespace moelora::sglang {
namespace {

using Is = ServerOption::Kind;

constexpr std::string_view kRunners =
    "auto deep_gemm triton triton_kernel flashinfer_trtllm flashinfer_trtllm_routed "
    "flashinfer_cutlass flashinfer_mxfp4 flashinfer_cutedsl cutlass marlin aiter "
    "experimental_sgl_trtllm experimental_sgl_marlin lora_cutedsl lora_triton lora_marlin";
constexpr std::string_view kQuantizations =
    "none unquant awq awq_marlin fp8 mxfp8 gptq gptq_marlin marlin bitsandbytes gguf modelopt "
    "modelopt_fp8 modelopt_fp4 petit_nvfp4 w8a8_int8 w8a8_fp8 moe_wna16 qoq w4afp8 mxfp4 "
    "auto-round compressed-tensors modelslim quark quark_int4fp8_moe";

constexpr auto kRows = std::to_array<ServerOption>({
    {"lora-use-virtual-experts", "virtual-experts", Is::on_off,
     "compute expert LoRA with one virtual expert for each expert and adapter"},
    {"experts-shared-outer-loras", "shared-outer", Is::on_off,
     "hold one outer factor for all experts; else the adapters given at start-up decide"},
    {"enable-fused-moe-sum-all-reduce", "", Is::on_off, "sum experts and ranks in one kernel"},
    {"disable-shared-experts-fusion", "", Is::on_off,
     "keep shared experts apart from the routed ones"},
    {"lora-strict-loading", "", Is::on_off, "refuse an adapter with a tensor that no target takes"},
    {"empty-start", "", Is::on_off,
     "the server starts without adapters, and they are loaded by request"},
    {"lora-target-modules", "", Is::text,
     "modules of all adapters to come, separated by commas; or all"},
    {"lora-backend", "", Is::text, "kernels of dense LoRA: csgmv, triton, triton_v2",
     "triton csgmv triton_v2 torch_native ascend flashinfer", true},
    {"moe-runner-backend", "", Is::text, "kernels of the experts: triton, lora_triton ...",
     kRunners},
    {"moe-a2a-backend", "", Is::text, "how tokens get to experts of other ranks: none, deepep ...",
     "none deepep mooncake nixl mori ascend_fuseep flashinfer"},
    {"quantization", "", Is::text, "of the base: mxfp4, fp8, modelopt_fp4 ...", kQuantizations},
    {"attn-dp-size", "", Is::number, "groups of ranks that share no tokens in attention"},
    {"dp-size", "", Is::number, "copies of the model; with enable-dp-attention an attn-dp-size"},
    {"enable-dp-attention", "", Is::on_off, "dp-size is meant as attn-dp-size"},
    {"pinned", "", Is::on_off, "adapters are given with \"pinned\": true"},
    {"dcp-replicate-q-proj", "", Is::on_off, "every rank decodes with all heads of the queries"},
    {"enable-two-batch-overlap", "", Is::on_off, "compute two halves of a batch in turns"},
    {"enable-pdmux", "", Is::on_off, "prefill and decode on one GPU at once"},
    {"enable-eplb", "", Is::on_off, "move experts between ranks as their load asks for it"},
    {"ep-num-redundant-experts", "", Is::number, "experts that are held twice"},
});

// "q_proj,k_proj" or "q_proj k_proj".
NameSet names_in(std::string_view text) {
  NameSet out;
  while (!text.empty()) {
    const size_t end = text.find_first_of(", ");
    if (end != 0) out.emplace(text.substr(0, end));
    text = end == std::string_view::npos ? "" : text.substr(end + 1);
  }
  return out;
}

}  // namespace

std::span<const ServerOption> server_options() { return kRows; }

Launch launch_of(const ServerOptions& options) {
  Launch out;
  out.tp = options.tp;
  out.ep = options.ep;
  out.slots = options.max_loras.value_or(out.slots);
  out.max_lora_rank = options.max_lora_rank;
  const NameSet targets = names_in(options.text("lora-target-modules"));
  if (!targets.empty()) out.target_modules = targets;
  out.shared_outer = options.flag("experts-shared-outer-loras");
  out.strict = options.on("lora-strict-loading");
  const bool old_spelling = options.on("enable-dp-attention");
  out.attention_groups = options.number("attn-dp-size")
                             .value_or(old_spelling ? options.number("dp-size").value_or(1) : 1);
  out.pinned = options.on("pinned");
  out.replicated_q = options.on("dcp-replicate-q-proj");
  return out;
}

bool starts_empty(const ServerOptions& options) { return options.on("empty-start"); }

}  // namespace moelora::sglang
