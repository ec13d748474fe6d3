#pragma once

#include "lib/engine/engine.h"
#include "lib/engine/vllm/server/server.h"

namespace moelora::vllm {

// What one rank allocates for adapters as soon as LoRA is enabled, whatever the adapters hold.
MemoryPlan memory_plan(const Server& server, const Json& base_config, const ServerOptions& options);

}  // namespace moelora::vllm
