#pragma once

#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/adapter/config/adapter_config.h"
#include "lib/base/dtype.h"

namespace moelora {

// A `lora-convert adapter` that repairs an adapter, as it would be typed.
struct Repair {
  std::string adapter;      // the input's path
  LoadOptions load;         // how it was read; `load.base` is what --base is told, "" nothing
  std::string engine = {};  // --for: "sglang@0.5.18"; "" for a layout alone
  std::string to = {};      // --to; "" for the engine's own choice
  std::vector<std::string> server_options = {}, drop = {};
  std::optional<DType> dtype = {};

  // The whole line, each word as a POSIX shell takes it. `out`: what the output is called.
  std::string command(std::string_view out = "OUT") const;
};

// As a POSIX shell takes it: in quotes where it must be, in $'..' (POSIX 2024, bash, zsh) where it
// holds what is not printable.
std::string shell_word(std::string_view word);

}  // namespace moelora
