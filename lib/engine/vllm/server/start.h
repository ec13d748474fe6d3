#pragma once

#include <vector>

#include "lib/engine/vllm/server/server.h"

namespace moelora::vllm {

// What keeps the server from starting with LoRA on this base and these options, whatever the
// adapter.
std::vector<PlanEvent> start_events(const Server& server);

}  // namespace moelora::vllm
