#pragma once

#include "lib/engine/plan.h"
#include "lib/engine/sglang/pool/pool.h"

namespace moelora::sglang {

// Bytes of one rank's pool. SGLang allocates a buffer in every layer, dense ones included.
MemoryPlan plan_memory(const Pool& pool, int64_t slots, const Json& base_config);

}  // namespace moelora::sglang
