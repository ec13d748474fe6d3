#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "lib/engine/python_text.h"
#include "lib/engine/sglang/features.h"
#include "lib/engine/sglang/model/model_class.h"

namespace moelora::sglang {

// A name of target_modules as SGLang normalises it: its last component, with the parts of a fused
// module named after the whole ("self_attn.q_proj" is qkv_proj). w1, w2, w3 stay as they are.
std::string normalised_target(std::string_view name, const Features& features);

// A target of DSA's indexer, which names its parent too: "indexer.wq_b".
bool is_indexer(std::string_view target);

// The modules "all" and "all-linear" stand for: those of the class that the pool can hold.
NameSet detect_targets(const ModelClass& model, const Features& features);

// Finds the target a name belongs to: the longest that occurs anywhere in it.
class TargetMatcher {
 public:
  explicit TargetMatcher(const NameSet& targets);

  const std::string* find(std::string_view name) const;  // null for none

 private:
  std::vector<std::string> targets_;  // longest first
};

// A module of the class that LoRA wraps, and the buffer it reads. A FusedMoE is there twice.
struct WrappedModule {
  const ClassModule* module;
  std::string buffer;  // "qkv_proj", "gate_up_proj_moe"
};

// LoRAManager.init_lora_modules(): what is wrapped in each layer, in the class's order, and what
// cannot be. FusedMoE is wrapped only when gate_up_proj and down_proj both are targets.
struct Wrapping {
  std::vector<std::vector<WrappedModule>> layers;
  bool embed_tokens = false, lm_head = false;
  std::vector<const ClassModule*> unsupported;  // the first ends the start-up
};
Wrapping wrap_modules(const ModelClass& model, const Features& features, const NameSet& targets);

// Input and output width of a buffer's module, or what get_hidden_dim() raises for it.
struct HiddenDim {
  int64_t in = 0, out = 0;
  std::string error_type = {}, error_text = {};  // "" when there are dims

  bool ok() const { return error_type.empty(); }
};

// SGLang's get_default_hidden_dim() (lora/utils.py): from the config, not from the layers, and as
// if all layers were alike. For a class that has its own the widths are those of its layers.
HiddenDim hidden_dim(const ModelClass& model, const Features& features, std::string_view module,
                     int layer);

// How many factors a buffer stacks: 3 for qkv_proj.
int64_t stacked_multiply(const ModelClass& model, std::string_view module);

}  // namespace moelora::sglang
