#pragma once

#include <vector>

#include "lib/engine/vllm/server/server.h"

namespace moelora::vllm {

// The modules that vLLM wraps on this base: the class's list, in the layers that have them.
std::vector<Module> make_modules(const Server& server, const Json& base_config);

// Whether the class packs gate_proj and up_proj of a dense layer (ModelClass::packs_gate_up_with).
bool packs_gate_up(const Server& server, const Json& base_config);

}  // namespace moelora::vllm
