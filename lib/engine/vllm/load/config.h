#pragma once

#include <vector>

#include "lib/engine/served_adapter.h"
#include "lib/engine/vllm/load/event.h"
#include "lib/engine/vllm/server/settings.h"

namespace moelora::vllm {

// What PEFTHelper makes of adapter_config.json.
struct LoraConfig {
  double scaling = 1;             // of dense modules and stacked experts: alpha / r, or / sqrt(r)
  double expert_scaling = 1;      // of numbered and shared-outer experts
  bool readable = false;          // false: the server raised, the scales mean nothing
  std::vector<LoadEvent> events;  // stages load, config, validate
};

LoraConfig read_config(const ServedAdapter& adapter, const Settings& settings);

}  // namespace moelora::vllm
