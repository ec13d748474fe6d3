#pragma once

#include <string>
#include <vector>

#include "lib/model/family.h"
#include "lib/model/model_spec.h"

namespace moelora {

// Builds the spec for a config.json: the data of its model_type's family, evaluated. `more` are
// further families (--model-spec): the last of them that has the model_type wins over the embedded
// ones. Throws Error naming the config key that is missing or wrong, or UnknownFamily for a
// model_type that none describes.
ModelSpec make_model_spec(const Json& config, const std::string& where,
                          const std::vector<Family>& more = {});

// The weight loaders that the config's family was read in (Family::from_loaders), "" for a family
// that was compared with models. Throws as make_model_spec.
std::string loaders_of(const Json& config, const std::string& where,
                       const std::vector<Family>& more = {});

}  // namespace moelora
