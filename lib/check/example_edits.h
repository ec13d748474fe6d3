#pragma once

#include <initializer_list>
#include <string>
#include <string_view>

#include "lib/check/specimen.h"

namespace moelora {

// Changes that the examples of rules make of sound adapters.

// A module's tensors and its name in target_modules.
void remove_module(Specimen& specimen, std::string_view leaf);

// Another target_modules.
void set_targets(Specimen& specimen, std::initializer_list<std::string_view> targets);

// A pair of the config's rank on `module`, a path without "base_model.model.".
void add_pair(Specimen& specimen, const std::string& module, int64_t in, int64_t out);

}  // namespace moelora
