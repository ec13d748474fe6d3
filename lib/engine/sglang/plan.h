#pragma once

#include <vector>

#include "lib/engine/engine.h"
#include "lib/engine/sglang/server.h"

namespace moelora::sglang {

// What the server does with adapter `index` when it is first used. Call once.
AdapterPlan plan_adapter(Server& server, size_t index, const PlanRequest& request);

// What became of every tensor of adapter `index`, and an event for each that is not served whole
// and in place. Call once, after use().
std::vector<TensorFate> tensor_fates(Server& server, size_t index);

ServerPlan plan(const PlanRequest& request);  // Engine::plan

}  // namespace moelora::sglang
