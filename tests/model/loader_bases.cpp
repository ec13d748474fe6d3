#include "tests/model/loader_bases.h"

#include <filesystem>
#include <fstream>
#include <map>

#include "lib/model/model_builder.h"

namespace {

const std::map<std::string, const char*>& configs() {
  static const std::map<std::string, const char*> all = {
      // As Ling-lite's, without a head_dim: 60 / 6.
      {"bailing_moe", R"({"model_type": "bailing_moe", "architectures": ["BailingMoeForCausalLM"],
        "hidden_size": 60, "num_hidden_layers": 3, "vocab_size": 96, "num_attention_heads": 6,
        "num_key_value_heads": 2, "num_experts": 7, "num_experts_per_tok": 3,
        "moe_intermediate_size": 22, "num_shared_experts": 2, "intermediate_size": 52,
        "first_k_dense_replace": 1, "use_bias": false, "use_qkv_bias": false,
        "hidden_act": "silu", "tie_word_embeddings": false})"},
      // As Ling-mini-2.0's: an own width of shared experts.
      {"bailing_moe_v2", R"({"model_type": "bailing_moe",
        "architectures": ["BailingMoeV2ForCausalLM"], "hidden_size": 60, "num_hidden_layers": 2,
        "vocab_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 14,
        "num_experts": 7, "num_experts_per_tok": 3, "moe_intermediate_size": 22,
        "moe_shared_expert_intermediate_size": 26, "num_shared_experts": 1,
        "intermediate_size": 52, "first_k_dense_replace": 1, "use_bias": false,
        "use_qkv_bias": true, "hidden_act": "silu", "tie_word_embeddings": false})"},
      // As grok-2's.
      {"grok", R"({"model_type": "git", "architectures": ["Grok1ForCausalLM"], "hidden_size": 60,
        "num_hidden_layers": 2, "vocab_size": 96, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "num_local_experts": 5,
        "num_experts_per_tok": 2, "moe_intermediate_size": 22, "intermediate_size": 52,
        "residual_moe": true})"},
      // As Grok-1's for SGLang.
      {"grok_of_mixtral", R"({"model_type": "mixtral",
        "architectures": ["Grok1ModelForCausalLM"], "hidden_size": 60, "num_hidden_layers": 1,
        "vocab_size": 96, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
        "num_local_experts": 5, "num_experts_per_tok": 2, "intermediate_size": 52})"},
      // As Grok-1's for transformers.
      {"grok1", R"({"model_type": "grok-1", "architectures": ["Grok1ModelForCausalLM"],
        "hidden_size": 60, "num_hidden_layers": 2, "vocab_size": 96, "num_attention_heads": 6,
        "num_key_value_heads": 2, "num_experts": 5, "num_experts_per_tok": 2,
        "intermediate_size": 52, "hidden_act": "gelu", "tie_word_embeddings": false})"},
      {"step3", R"({"model_type": "step3_vl", "architectures": ["Step3VLForConditionalGeneration"],
        "text_config": {"model_type": "step3_text", "architectures": ["Step3TextForCausalLM"],
        "hidden_size": 60, "num_hidden_layers": 3, "vocab_size": 96, "num_attention_heads": 6,
        "num_attention_groups": 1, "head_dim": 14, "share_q_dim": 34, "moe_num_experts": 5,
        "moe_top_k": 2, "moe_intermediate_size": 22, "share_expert_dim": 26,
        "intermediate_size": 52, "moe_layers_enum": "2"}})"},
      {"kimi_k3", R"({"model_type": "kimi_k3", "architectures": ["KimiK3ForConditionalGeneration"],
        "text_config": {"model_type": "kimi_linear", "architectures": ["KimiLinearForCausalLM"],
        "hidden_size": 60, "num_hidden_layers": 4, "vocab_size": 96, "num_attention_heads": 6,
        "num_key_value_heads": 6, "q_lora_rank": 18, "kv_lora_rank": 20, "qk_nope_head_dim": 10,
        "qk_rope_head_dim": 4, "v_head_dim": 12, "mla_use_output_gate": true,
        "attn_res_block_size": 2, "num_experts": 7, "num_experts_per_token": 3,
        "moe_intermediate_size": 22, "routed_expert_hidden_size": 28, "num_shared_experts": 2,
        "intermediate_size": 52, "first_k_dense_replace": 1, "moe_layer_freq": 1,
        "hidden_act": "situ", "linear_attn_config": {"num_heads": 5, "head_dim": 8,
        "kda_layers": [1, 2, 3], "full_attn_layers": [4], "use_full_rank_gate": true}}})"}};
  return all;
}

}  // namespace

std::vector<std::string> loader_bases() {
  std::vector<std::string> out;
  for (const auto& entry : configs()) out.push_back(entry.first);
  return out;
}

moelora::Json loader_config(const std::string& base) {
  return moelora::parse_json(configs().at(base), base);
}

bool is_loader_base(const std::string& name) { return configs().contains(name); }

moelora::BaseModel loader_model(const std::string& base) {
  moelora::BaseModel out;
  out.config = loader_config(base);
  out.spec = moelora::make_model_spec(out.config, base);
  return out;
}

moelora::ModelSpec loader_spec(const std::string& base, const std::string& changes) {
  moelora::Json config = loader_config(base);
  const moelora::Json changed = moelora::parse_json(changes, "changes");
  for (const auto& [key, value] : changed.members()) config.set(key, value);
  return moelora::make_model_spec(config, "config.json");
}

std::string write_loader_base(const std::string& folder, const std::string& base) {
  const std::string path = folder + "/" + base;
  std::filesystem::create_directories(path);
  std::ofstream(path + "/config.json") << configs().at(base);
  return path;
}
