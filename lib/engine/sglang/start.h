#pragma once

#include <string>

#include "lib/engine/sglang/server.h"

namespace moelora::sglang {

// Why nothing is known of what becomes of an adapter of this base: a class that SGLang does not
// have, or that is not in schemas/engines/sglang.json. "" where it is known.
std::string class_not_known(const PlanRequest& request);

// A server with the request's options, started with its adapters, or empty and asked to load them;
// it has used none yet. Throws Error for a class that is not known.
Server start_server(const PlanRequest& request);

}  // namespace moelora::sglang
