#include "lib/check/define_rule.h"
#include "lib/check/specimen.h"
#include "lib/engine/sglang/causes.h"

namespace moelora {
namespace {

// Every layer with full attention, so that no linear attention is needed.
void make_qwen3_next(Specimen& specimen) {
  Json& base = specimen.base_config;
  base.set("model_type", "qwen3_next");
  base.set("architectures", Json::strings({"Qwen3NextForCausalLM"}));
  base.set("layer_types", Json::strings({"full_attention", "full_attention"}));
  base.set("num_experts", 8);
  base.set("shared_expert_intermediate_size", 24);
  for (const char* key : {"linear_num_key_heads", "linear_key_head_dim", "linear_num_value_heads",
                          "linear_value_head_dim"})
    base.set(key, 4);
  replace_tensors(specimen, "q_proj.lora_B", {128, 4});
}

}  // namespace

const Rule sgl043_attention_width = {
    .id = "SGL043",
    .name = "attention-width",
    .cause = &sglang::cause::attention_width,
    .engine = &engines::sglang,
    .what =
        "SGLang's buffer of an attention module is not as wide as the module: q_proj of Qwen3-Next "
        "has the rows of an output gate beside those of the queries.",
    .why =
        "The adapter fits the model. SGLang sizes the buffer of qkv_proj by the heads of the "
        "config, for all but a few classes, and stops at the first request: \"LoRA buffer shape "
        "torch.Size([5120, 8]) does not match weight shape torch.Size([9216, 8]).\".",
    .fix = "Serve it with vLLM, or train without attention (q_proj, k_proj, v_proj).",
    .source = "SGLang lora/utils.py, get_default_hidden_dim; models/qwen3_next.py",
    .breaks = {.change = "a Qwen3-Next base", .apply = make_qwen3_next},
};

}  // namespace moelora
