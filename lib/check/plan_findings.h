#pragma once

#include <functional>
#include <string_view>

#include "lib/check/rule.h"

namespace moelora {

// RuleContext::explain_plan() for rules that have something to add: `refine` is called with each
// finding and the event it is of.
void explain_plan_with(RuleContext& context,
                       const std::function<void(Finding&, const PlanEvent&)>& refine);

// ... for rules about a key of adapter_config.json: a finding that names no tensor points at it.
void explain_plan_at(RuleContext& context, std::string_view key);

// For the rules about a server's memory: a finding where its LoRA slots are larger than the GPU
// that --gpu-memory names.
void report_slot_memory(RuleContext& context);

}  // namespace moelora
