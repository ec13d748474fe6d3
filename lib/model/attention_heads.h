#pragma once

#include <cstdint>

#include "lib/model/model_spec.h"

namespace moelora {

// How the rows of q_proj, k_proj and v_proj are divided among heads.
struct AttentionHeads {
  int64_t heads, kv_heads, head_dim;
};

// Throws Error, which names the model_type, where the family's file says no such numbers: MLA,
// attention whose heads differ from layer to layer, and models read by their weights alone.
AttentionHeads attention_heads(const ModelSpec& spec);

}  // namespace moelora
