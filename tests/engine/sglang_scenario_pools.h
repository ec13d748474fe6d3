#pragma once

#include <string>

#include "lib/engine/sglang/server.h"

namespace moelora::test {

// What rank 0 of our server holds of adapter `index`, read of `folder`, against the oracle's pool
// of that scenario (sglang_scenario_pools.txt: names and bytes, bit for bit).
struct ScenarioPool {
  size_t buffers = 0;      // compared; 0 where the oracle has none
  std::string difference;  // "" where they agree
};
ScenarioPool compare_scenario_pool(const sglang::Server& server, size_t index,
                                   const std::string& folder, const std::string& label);

}  // namespace moelora::test
