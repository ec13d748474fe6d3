#pragma once

#include <string>
#include <unordered_set>
#include <vector>

#include "lib/engine/plan.h"
#include "lib/engine/vllm/server/model_class.h"
#include "lib/engine/vllm/server/settings.h"

namespace moelora::vllm {

// How a module's LoRA lies on the ranks.
enum class Kind : uint8_t {
  replicated,       // whole on every rank
  column,           // rows of B are cut
  row,              // columns of A are cut
  merged,           // column, of several children side by side: qkv_proj, gate_up_proj ...
  variable,         // one pair whose B is split into several slices
  unknown,          // a convolution whose shape we do not know
  embedding,        // A transposed, nothing cut
  logits,           // lm_head: nothing cut
  experts,          // FusedMoEWithLoRA: per expert, w1/w2/w3
  stacked_experts,  // FusedMoE3DWithLoRA: gate_up and down of all experts
};

// A pair of the adapter that a module takes.
struct Child {
  std::string name;           // "model.layers.0.self_attn.q_proj", as vLLM spells it
  int64_t in = -1, out = -1;  // of the whole base Linear; -1 unknown
  int64_t parts = 1;          // B's rows lie on the ranks in so many parts (kv heads: at most tp)
  const LinearSpec* linear = nullptr;  // null: a convolution
};

// A module that vLLM wraps for LoRA.
struct Module {
  std::string name;  // "model.layers.0.self_attn.qkv_proj"
  Kind kind = Kind::replicated;
  int layer = -1;
  bool packed = false;          // the adapter names its children instead
  std::vector<Child> children;  // one entry where not packed; none for experts
  std::vector<int64_t> slices;  // rows of each buffer of B, whole; as the children's where empty
  bool is_experts() const { return kind == Kind::experts || kind == Kind::stacked_experts; }
};

// vLLM as started on a base model, before any adapter is loaded.
struct Server {
  const ModelSpec& spec;
  ModelClass model;
  Settings settings;
  std::vector<Module> modules;  // in the order in which an adapter is copied
  // Names the gate accepts: last components, and "experts.3.up_proj".
  std::unordered_set<std::string> accepted;
  std::vector<std::string> expert_names;  // children of "experts", w1 w2 w3 of each expert in turn;
                                          // none for stacked experts
  std::vector<PlanEvent> events;          // why it does not start

  int64_t local_experts() const { return spec.experts / settings.ep(); }
  int64_t first_expert(int64_t rank) const {
    return settings.expert_parallel ? rank * local_experts() : 0;
  }
  // Rows of gate (and of up) in a rank's buffer. MXFP4 backends round it up.
  int64_t intermediate() const;
  bool stacked() const;  // the experts' wrapper is the stacked one
  bool is_gpt_oss() const { return model.interleaved; }
};

// Throws Error for a base whose class this tool does not know. `spec` must outlive the result.
Server make_server(const ModelSpec& spec, const Json& base_config, Settings settings);

}  // namespace moelora::vllm
