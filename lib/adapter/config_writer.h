#pragma once

#include <span>
#include <string>
#include <vector>

#include "lib/adapter/changes.h"
#include "lib/adapter/layout.h"

namespace moelora {

// The adapter_config.json of a written adapter: what PEFT needs to create exactly the written
// modules with exactly their scales. target_modules, exclude_modules, target_parameters, r,
// lora_alpha, rank_pattern and alpha_pattern are rewritten where they must be; every other key
// stays in place. The marker keys that make the layout unambiguous are added (`moelora`, and
// `lora_B_layout` for peft-params). `dense` and `experts` are all targets of the written tensors.
struct WrittenConfig {
  const AdapterConfig& original;
  const ModelSpec* spec;
  const Layout* layout;  // null: no routed-expert factors
  LayoutWriteOptions options;
  std::optional<GateUpOrder> gate_up_order;  // of fused factors as written
  std::span<const ExpertTarget> dense, experts;
  const Changes* changes = nullptr;  // set: written for one engine
};

Json write_config(const WrittenConfig& in);

}  // namespace moelora
