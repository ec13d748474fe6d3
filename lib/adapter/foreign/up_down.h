#pragma once

#include <cstdint>
#include <functional>
#include <string>
#include <string_view>

#include "lib/adapter/dialect.h"

namespace moelora {

// What dialects share that write lora_down and lora_up for PEFT's lora_A and lora_B, and lora_alpha
// as a tensor of one number beside them (kohya's, diffusers').

enum class UpDownPart : uint8_t {
  down,        // MODULE.lora_down.weight, .lora.down.weight, .lora_linear_layer.down.weight
  up,          // the same of up
  alpha,       // MODULE.alpha
  dora_scale,  // MODULE.dora_scale
  unread,      // lora_mid, a bias, one of several lora_down ..
  none,        // of another kind
};

struct UpDownName {
  std::string_view module;  // of the name
  UpDownPart part;
};
UpDownName split_up_down(std::string_view name);

// PEFT's config where there is none: r from the shapes, lora_alpha so that the scale is 1, as these
// trainers compute where no alpha is said. One that lies there is returned as it is, whatever it
// lacks.
Json up_down_config(const ForeignAdapter& in);

// Translates every pair with its alpha; `hub_module` makes the hub's path of what stands for it in
// the name of this tensor. What is not the dialect's (`owns`) keeps its names. Throws Error.
using HubModule = std::function<std::string(const std::string& name, std::string_view module)>;
void read_up_down(const ForeignAdapter& in, bool (*owns)(std::string_view),
                  const HubModule& hub_module, Translation& out);

}  // namespace moelora
