#pragma once

#include "lib/engine/sglang/load/cpu_adapter.h"

namespace moelora::sglang {

// SGLang scales every module by lora_alpha / r: what rsLoRA, rank_pattern and alpha_pattern say
// otherwise is not read. An event for each that changes the scale of a tensor that is there.
void check_scales(CpuAdapter& adapter);

}  // namespace moelora::sglang
