#pragma once

#include "lib/engine/sglang/features.h"
#include "lib/engine/sglang/load/cpu_adapter.h"
#include "lib/engine/sglang/model/model_class.h"

namespace moelora::sglang {

// LoRAAdapter._normalize_weights(): layer by layer the parts of fused modules become one tensor
// (q, k, v; gate, up; q_a, kv_a), w1/w3/w2 become gate/up/down, and an A that fused parts share is
// repeated. What cannot be stacked is refused; the rest goes on.
void normalise(CpuAdapter& adapter, const ModelClass& model, const Features& features);

}  // namespace moelora::sglang
