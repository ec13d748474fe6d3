#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

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
  joined,           // one pair whose B's slices, each cut by itself, lie in one buffer
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
  // Null: a convolution, or values that are the keys and have a slot of their own all the same.
  const LinearSpec* linear = nullptr;
};

// A module that vLLM wraps for LoRA.
struct Module {
  std::string name;  // "model.layers.0.self_attn.qkv_proj"
  Kind kind = Kind::replicated;
  int layer = -1;
  bool packed = false;          // the adapter names its children instead
  std::vector<Child> children;  // one entry where not packed; none for experts
  std::vector<int64_t> slices;  // rows of each buffer of B, whole; as the children's where empty
  int64_t kv_parts = 0;         // joined: in how many parts all slices but the first lie; 0: as it
  bool is_experts() const { return kind == Kind::experts || kind == Kind::stacked_experts; }
};

// Whether the experts' wrapper is the stacked one.
bool wraps_stacked(const ModelClass& model, const Settings& settings);

// The modules that vLLM wraps on this base: the class's list, in the layers that have them.
// `spec` must outlive them.
std::vector<Module> make_modules(const ModelSpec& spec, const Json& base_config,
                                 const ModelClass& model, const Settings& settings);

// Keys that are the values as well and that an adapter names once: "layers.5.self_attn.k_proj" of a
// packed module whose values are no Linear of the base.
std::set<std::string> keys_as_values(const std::vector<Module>& modules);

// An integer of the base's config, first of its text_config; `otherwise` where it has none.
int64_t config_int(const Json& config, std::string_view key, int64_t otherwise);

// Whether the class packs gate_proj and up_proj of a dense layer (ModelClass::packs_gate_up_with).
bool packs_gate_up(const ModelClass& model, const Json& base_config);

}  // namespace moelora::vllm
