#pragma once

#include "lib/engine/served_adapter.h"
#include "lib/engine/sglang/features.h"
#include "lib/engine/sglang/load/cpu_adapter.h"
#include "lib/engine/sglang/model/model_class.h"

namespace moelora::sglang {

// LoRAAdapter.initialize_weights(): which files are read, which tensor goes to which layer, and,
// layer by layer, its _normalize_weights(): the parts of fused modules become one tensor (q, k, v;
// gate, up; q_a, kv_a), w1/w3/w2 become gate/up/down, and an A that fused parts share is repeated.
// What cannot be stacked is refused; the rest goes on. REQUIRES adapter.alive.
void load_weights(CpuAdapter& adapter, const ServedAdapter& served, const ModelClass& model,
                  const Features& features);

}  // namespace moelora::sglang
