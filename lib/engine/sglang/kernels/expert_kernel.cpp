#include "lib/engine/sglang/kernels/expert_kernel.h"

namespace moelora::sglang {
namespace {

using GateUp = ExpertKernel::GateUp;

GateUp gate_up_of(const ModelClass& model, const ServerOptions& options) {
  if (!model.gated) return GateUp::apart;
  const bool experimental = options.text("moe-runner-backend").starts_with("experimental_sgl_");
  if (options.on("lora-use-virtual-experts"))
    return experimental ? GateUp::apart : GateUp::gate_a_only;
  return model.interleaved ? GateUp::halves : GateUp::apart;
}

bool has_expert_lora(const Features& features, const ServerOptions& options) {
  const std::string backend = options.text("lora-backend");
  return features.csgmv_experts || backend.empty() || backend == "triton";
}

}  // namespace

ExpertKernel expert_kernel(const ModelClass& model, const Features& features,
                           const ServerOptions& options, int64_t r, int64_t max_rank) {
  ExpertKernel out;
  out.gate_up = gate_up_of(model, options);
  out.has_lora = has_expert_lora(features, options);
  out.sums_down = !(options.on("enable-fused-moe-sum-all-reduce") && model.top_k > 2);
  out.weights_outputs = model.family != "llama4";
  out.up_at_max_rank = model.gated && !features.any_rank_below_max && r < max_rank;
  return out;
}

}  // namespace moelora::sglang
