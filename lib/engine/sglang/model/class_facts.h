#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lib/model/model_spec.h"

namespace moelora::sglang {

// What SGLang builds a layer of, as far as its LoRA code distinguishes them.
enum class LayerKind : uint8_t {
  embedding,   // VocabParallelEmbedding
  lm_head,     // ParallelLMHead
  qkv,         // QKVParallelLinear
  merged,      // MergedColumnParallelLinear
  column,      // ColumnParallelLinear
  row,         // RowParallelLinear
  replicated,  // ReplicatedLinear
  fused_moe,   // FusedMoE
  foreign,     // anything LoRA cannot wrap
};

// Parts that SGLang holds as one module, in its order.
struct PackedModule {
  std::string name;
  LayerKind kind;
  std::vector<std::string> parts;
  bool splits_first;  // into q, k and v of linear attention
};

// Where the class has its lm_head: a tied one within a model inside LoRA does not find.
enum class LmHead : uint8_t { own, within, none };

// What the class does beyond what the family's file says: its entry in schemas/engines/sglang.json,
// whose schema explains the fields, or in the family's file.
struct ClassFacts {
  bool run_by_oracle = false;
  bool interleaves_gate_up = false;
  bool experts_in_every_layer = false;
  bool own_hidden_dim = false;
  bool first_k_dense_replace = false;
  bool weights_input = false;
  bool asks_for_moe_runner_config = false;
  bool expert_biases = false;
  bool transformers_fallback = false;
  bool only_without_experts = false;
  LmHead lm_head = LmHead::own;
  std::string router_type;                // "" where LoRA can wrap it
  std::string since;                      // the first release that has it; "" for all
  std::string not_built, not_judged;      // the server's error; why nothing is said
  std::vector<std::string> lora_modules;  // below a layer; empty: whatever is a target
  std::vector<PackedModule> packed;       // those of every class that it has, after its own
};

// Of the class that SGLang builds for a base (find_server_class).
ClassFacts read_class_facts(const ModelSpec& spec);

// "layers" of schemas/engines/sglang.json: kinds by the last component of a name.
bool is_row_linear(std::string_view leaf);
bool is_replicated_linear(std::string_view leaf);

}  // namespace moelora::sglang
