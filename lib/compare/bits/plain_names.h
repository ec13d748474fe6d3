#pragma once

#include "lib/base/tensor.h"

namespace moelora::packed {

// The tensors of an adapter under the names that its model has: without what training wraps modules
// in (_orig_mod, module, _fsdp_wrapped_module ...), and of a text module that is there under two
// prefixes with the same bytes (model.layers, model.language_model.layers) the first alone. Throws
// Error where a name is then there twice.
TensorMap with_plain_names(const TensorMap& tensors);

}  // namespace moelora::packed
