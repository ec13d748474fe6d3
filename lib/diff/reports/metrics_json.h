#pragma once

#include "lib/diff/metrics.h"
#include "lib/io/json.h"

namespace moelora {

// {"n": .., NAME: ..} by Metrics::named(); null for what is not finite.
Json metrics_json(const Metrics& metrics);

}  // namespace moelora
