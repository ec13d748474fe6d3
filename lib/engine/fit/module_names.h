#pragma once

#include "lib/engine/fit/step.h"

namespace moelora::fit {

// Modules under the names of the base that is served: a model trained alone and served inside a
// multimodal wrapper (or the reverse) has the same layers under another prefix, where a server
// finds nothing and says nothing.
extern const FitStep module_names;

}  // namespace moelora::fit
