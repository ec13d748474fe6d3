#pragma once

#include <optional>

#include "lib/check/subject/base_headers.h"
#include "lib/check/subject/subject.h"

namespace moelora {

// What goes into and out of a module of the base model.
struct ModuleDims {
  int64_t in, out;
};

// Of the module of a factor: from the weights where they are at hand (`headers` may be null), else
// from the config. nullopt for a module that is not known, or a stacked pair, which may be either
// parameter.
std::optional<ModuleDims> module_dims(const NamedTensor& tensor, const ModelSpec& spec,
                                      const BaseHeaders* headers);

}  // namespace moelora
