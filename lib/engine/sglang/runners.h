#pragma once

#include <string>
#include <vector>

#include "lib/engine/sglang/server.h"

namespace moelora::sglang {

// Combinations of server options, and of them and the base, that end the start whatever the adapter
// (arg_groups/lora_hook.py, LoRAManager.__init__, lora/layers.py, lora/moe/runner.py of 0.5.23).

// How the base's experts are stored, as SGLang's quant methods are called; "" as they are.
std::string quantization_of(const ServerOptions& options, const Json& base_config);

// Whether it is one of 0.5.23's engines of expert LoRA: lora_cutedsl, lora_triton, lora_marlin.
bool is_lora_runner(std::string_view runner);

// What the command line alone raises, before a model is built.
std::vector<PlanEvent> check_arguments(const PlanRequest& request, const Features& features);
// What wrapping the experts raises. `server` was started.
std::vector<PlanEvent> check_runner(const PlanRequest& request, const Server& server);

}  // namespace moelora::sglang
