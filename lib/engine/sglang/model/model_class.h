#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/engine/sglang/model/class_facts.h"
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

struct ClassModule {
  std::string name;  // "model.layers.0.self_attn.qkv_proj"
  LayerKind kind = LayerKind::foreign;
  int layer = -1;  // -1 outside the layers
  int64_t in = 0;
  std::vector<int64_t> out;  // rows of its parts: q, k, v; gate, up; one for the others
  std::string python_type;   // of a foreign one, as Python prints the class

  // The modules of the hub's files that its parts are: "model.layers.0.self_attn.q_proj" ...; of
  // parts that SGLang splits further the module itself.
  std::vector<std::string> parts;

  std::string_view leaf() const;  // "qkv_proj"
  int64_t rows() const;           // of all parts
};

// The model class SGLang serves a base with: its modules in the order of named_modules(), fused as
// SGLang fuses them. Qwen2- and Qwen3-MoE have experts in every layer, whatever mlp_only_layers and
// decoder_sparse_step say (models/qwen3_moe.py, models/qwen2_moe.py).
struct ModelClass {
  HfConfig config;
  std::string family;
  ClassFacts facts;
  std::vector<ClassModule> modules;
  std::string architecture;
  std::string activation;  // of experts
  int64_t experts = 0, expert_in = 0, intermediate = 0, top_k = 0;
  bool has_moe = false;  // a FusedMoE is among the modules
  bool gated = true;
  bool interleaved = false;          // gate and up rows of the experts are g0,u0,g1,u1 (gpt-oss)
  bool tied = false;                 // lm_head is embed_tokens
  bool indexer_interleaves = false;  // indexer_rope_interleave

  int layers() const { return static_cast<int>(config.layers); }
};

ModelClass make_model_class(const ModelSpec& spec, const Json& base_config);

}  // namespace moelora::sglang
