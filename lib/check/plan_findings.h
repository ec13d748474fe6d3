#pragma once

#include "lib/check/rule.h"

namespace moelora {

// For the rules about a server's memory: a finding where its LoRA slots are larger than the GPU
// that --gpu-memory names.
void report_slot_memory(RuleContext& context);

}  // namespace moelora
