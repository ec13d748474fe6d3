#pragma once

#include <deque>
#include <optional>

#include "lib/engine/sglang/features.h"
#include "lib/engine/sglang/load/cpu_adapter.h"

namespace moelora::sglang {

// LoRAManager._detect_shared_outer_loras(): whether the pool holds one outer factor for all
// experts, by gate_up's lora_A of every adapter given at start-up. Adapters that disagree are
// refused. No evidence means no.
bool detect_shared_outer(std::deque<CpuAdapter>& adapters, const Features& features);

}  // namespace moelora::sglang
