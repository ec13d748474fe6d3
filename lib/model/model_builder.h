#pragma once

#include <string>
#include <vector>

#include "lib/model/family.h"
#include "lib/model/model_spec.h"

namespace moelora {

// The embedded families, parsed once, in order of name.
const std::vector<Family>& embedded_families();

// The family of a config's model_type: the last of `extra` that has it, else an embedded one.
// Throws Error that lists the known ones.
const Family& family_of(const Json& config, const std::string& where,
                        const std::vector<Family>& extra);

// A family's data evaluated against a config.
ModelSpec build_model_spec(const Json& config, const std::string& where, const Family& family);

}  // namespace moelora
