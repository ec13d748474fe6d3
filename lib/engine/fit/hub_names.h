#pragma once

#include <map>
#include <string>

#include "lib/adapter/convert.h"

namespace moelora::fit {

// Gives the tensors and the targets of a planned conversion other names: `names` is by module, or
// by the stem of a layer's experts ("model.layers.3.mlp.experts"). Notes it.
void rename_modules(const std::map<std::string, std::string>& names, Conversion& conversion);

}  // namespace moelora::fit
