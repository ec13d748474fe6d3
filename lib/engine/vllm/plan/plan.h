#pragma once

#include "lib/engine/plan.h"
#include "lib/engine/vllm/load/load.h"

namespace moelora::vllm {

// What all ranks together do with an adapter: what they raise, what becomes of every tensor, and
// where what they compute is not what the adapter means.
AdapterPlan plan_adapter(const Server& server, const ServedAdapter& served);

}  // namespace moelora::vllm
