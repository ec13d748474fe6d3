#pragma once

#include "lib/engine/vllm/load/lora_model.h"

namespace moelora::vllm {

// LoRAModelManager._create_merged_loras_inplace: children become the entries of their module,
// scales go into lora_B, stacked experts are cut into experts (stages pack, stack3d, convert3d).
// A module that is refused is taken out, so that what comes after it is looked at too.
void pack(Loading& load);

}  // namespace moelora::vllm
