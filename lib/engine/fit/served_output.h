#pragma once

#include <cstdint>
#include <string>

#include "lib/engine/fit/fit.h"

namespace moelora {

// What a server would find in the folder a conversion writes: names, shapes and the config.
ServedAdapter served_adapter(const Conversion& conversion, const std::string& out,
                             uint64_t max_shard_size);

// Runs the engine's own plan on that. Throws Error with the server's text when it would refuse the
// output, and with what becomes of the tensors when it would leave out, cut or misread any.
// Engines without a plan (peft) have nothing to say.
void check_served(const Conversion& conversion, const std::string& out, const FitOptions& options,
                  uint64_t max_shard_size);

}  // namespace moelora
