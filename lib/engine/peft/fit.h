#pragma once

#include "lib/engine/fit/engine_fit.h"

namespace moelora::peft {

// How adapters are made what this PEFT loads whole beside its transformers.
extern const EngineFit kFit;

}  // namespace moelora::peft
