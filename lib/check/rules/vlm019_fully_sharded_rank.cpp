#include "lib/check/define_rule.h"
#include "lib/check/specimen.h"
#include "lib/engine/vllm/causes.h"

namespace moelora {
namespace {

void halve_ranks(Specimen& specimen) {
  specimen.adapter().config.set("r", 2);
  const TensorMap before = specimen.tensors();
  for (const auto& [name, tensor] : before)
    specimen.set(name, tensor.slice(name.find("lora_A") != std::string::npos ? 0 : 1, 0, 2));
}

}  // namespace

const Rule vlm019_fully_sharded_rank = {
    .id = "VLM019",
    .name = "fully-sharded-rank",
    .cause = &vllm::cause::fully_sharded_rank,
    .engine = &engines::vllm,
    .what = "With --fully-sharded-loras: a rank that the tensor parallel size does not divide.",
    .why =
        "The experts' lora_A is cut along the rank (assert current_lora_rank % tp == 0): a bare "
        "AssertionError when the adapter is copied. --max-lora-rank must divide too: \"10 is not "
        "divisible by 4\".",
    .fix = "Start the server without --fully-sharded-loras.",
    .remedy = Remedy::for_engine,
    .source = "vLLM PR 28761, lora/layers/fused_moe.py; oracle peft_params_bf16 (fs)",
    .breaks = {.change = "serve rank 2 fully sharded on 4 ranks",
               .options = {"fully-sharded-loras=on", "tp-size=4"},
               .apply = halve_ranks},
};

}  // namespace moelora
