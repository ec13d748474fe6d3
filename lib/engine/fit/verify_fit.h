#pragma once

#include <cstdint>

#include "lib/adapter/adapter.h"

namespace moelora {

// Compares every delta of both adapters, module by module and expert by expert, by the distance of
// the products (lib/base/low_rank.h): equal where the scales' ratio is a power of two, else within
// what one rounding of each element of lora_B explains. What `fitted` has beyond `meant` must be
// zero. Knows nothing of how repairs are made. Both are read whole. Returns how many deltas were
// compared; throws Error that names the first that differs. REQUIRES: both know their gate_up_order
// where they hold gate_up factors.
int64_t verify_fit(const Adapter& meant, const Adapter& fitted, int threads);

}  // namespace moelora
