#pragma once

#include <cstdint>

#include "lib/adapter/adapter.h"

namespace moelora {

// Multiplies every delta of both adapters, module by module and expert by expert, with the same
// vectors of +1 and -1, in double, and compares: equal up to summation order where the scales'
// ratio is a power of two, else within one rounding of each element of lora_B. What `fitted` has
// beyond `meant` must be zero. Knows nothing of how repairs are made. Both are read whole.
// Returns how many deltas were compared; throws Error that names the first that differs. REQUIRES:
// both know their gate_up_order where they hold gate_up factors.
int64_t verify_fit(const Adapter& meant, const Adapter& fitted, int threads);

}  // namespace moelora
