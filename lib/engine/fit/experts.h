#pragma once

#include "lib/engine/fit/step.h"

namespace moelora::fit {

// Every expert with all its projections: vLLM asserts that they are there, SGLang does not apply
// experts of which only gate and up or only down are adapted. Missing factors are zero.
extern const FitStep whole_experts;

// One lora_A for gate and up: A' = [A_gate; A_up], B_gate' = [B_gate, 0], B_up' = [0, B_up]. Where
// the layout has one pair for both, or the engine uses gate's for both (EngineFit::misreads_up).
extern const FitStep one_a;

}  // namespace moelora::fit
