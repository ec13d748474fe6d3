#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/engine/peft/targets.h"
#include "lib/engine/peft/tensors.h"

namespace moelora::peft {

// A parameter of the adapter that PEFT has made and waits for.
struct Slot {
  std::string key;  // below "base_model.model.": "model.layers.0.mlp.experts.lora_A.default.weight"
  Shape shape;
  std::string target;    // the module or parameter that it adapts, which patterns name
  bool batched = false;  // of a parameter of three axes
};

// What injection makes of the targets.
struct Wrapped {
  std::vector<Slot> slots;  // in the order in which load_state_dict meets them
  std::map<std::string, size_t, std::less<>> by_key;
  std::map<std::string, int, std::less<>> layers;  // by module: how many wrappers stand around it
  Names saved;                                     // modules of modules_to_save
  std::optional<Refusal> refusal;
  std::string refused;  // the module or parameter that it is about; "" for the config

  const Slot* find(std::string_view key) const;
};
Wrapped wrap(const Config& config, const Host& host, const Modules& modules);

// What PEFT has made when it looks for the places of tensors.
struct Injected {
  const Host& host;
  const Modules& modules;
  const Wrapped& wrapped;
  const Config& declared;  // as the file has it
  const Config& config;    // as PEFT has changed it
};

}  // namespace moelora::peft
