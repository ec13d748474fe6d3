#pragma once

#include <cstdint>
#include <optional>
#include <string>

#include "lib/model/model_spec.h"

namespace moelora::sglang {

// The attributes of the Hugging Face text config that SGLang's LoRA code asks for, after what its
// ModelConfig writes into it (head_dim and v_head_dim are always there). nullopt: no such
// attribute.
struct HfConfig {
  std::string type;  // the config's class, "Qwen3MoeConfig"
  int64_t hidden = 0, layers = 0, vocab = 0;
  int64_t heads = 0, kv_heads = 0, head_dim = 0, v_head_dim = 0;
  int64_t intermediate = 0;                 // intermediate_size: of dense layers
  std::optional<int64_t> moe_intermediate;  // moe_intermediate_size
  std::optional<int64_t> first_dense, n_shared_experts;
  int64_t moe_layer_freq = 1;
  int64_t shared_intermediate = 0;  // shared_expert_intermediate_size
  std::optional<int64_t> q_lora_rank, kv_lora_rank, qk_nope, qk_rope;
  bool has_num_experts = false;  // spelled num_experts

  bool has_shared_experts() const {
    return shared_intermediate > 0 || n_shared_experts.value_or(0) > 0;
  }
};

// `has_first_dense`: the config's class has first_k_dense_replace with a default of its own.
HfConfig read_hf_config(const Json& base_config, const ModelSpec& spec, bool has_first_dense);

}  // namespace moelora::sglang
