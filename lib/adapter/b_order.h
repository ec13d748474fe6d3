#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "lib/adapter/config/adapter_config.h"
#include "lib/model/model_spec.h"

namespace moelora {

// What an adapter's config tells of the column order of its stacked lora_B tensors.
struct ToldOrder {
  std::optional<BOrder> order;  // nullopt: nothing decides
  std::string_view from;        // "marked", "stamped" or "fingerprint" of a writer; "" for nothing
  std::string evidence;  // of "stamped" and "fingerprint": what it was decided by, for people
  std::string doubt;     // without an order: why PEFT's may not be assumed; "" where it may
};

// In this order: a marker of the parameter or of all (ours, Unsloth's, at the top level or in
// auto_mapping); Unsloth's stamp auto_mapping.unsloth_fixed without a marker, which Unsloth itself
// reads as grouped by expert in 13 families and as rank-major in others; the config that
// Megatron-Bridge up to 0.6.2 writes, whose columns are grouped by expert and roles `swapped`.
// `parameter` is the parameter's path, "model.layers.0.mlp.experts.gate_up_proj"; `spec` may be
// null.
ToldOrder told_b_order(const AdapterConfig& config, const ModelSpec* spec,
                       std::string_view parameter, bool swapped);

}  // namespace moelora
