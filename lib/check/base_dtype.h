#pragma once

#include <string>

#include "lib/io/json.h"

namespace moelora {

// "bfloat16": the dtype of a base model's weights as its config.json says ("dtype", older
// "torch_dtype", at the top or in text_config); "" when it does not.
std::string base_dtype(const Json& config);

}  // namespace moelora
