#pragma once

#include "lib/engine/sglang/server.h"

namespace moelora::sglang {

// A server with the request's options, started with its adapters, or empty and asked to load them;
// it has used none yet. Throws Error for a base whose class SGLang does
// not have, or is not known here.
Server start_server(const PlanRequest& request);

}  // namespace moelora::sglang
