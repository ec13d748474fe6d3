#pragma once

#include <vector>

#include "lib/engine/sglang/model/model_class.h"
#include "lib/engine/sglang/model/targets.h"
#include "lib/engine/sglang/pool/pool.h"

namespace moelora::sglang {

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

}  // namespace moelora::sglang
