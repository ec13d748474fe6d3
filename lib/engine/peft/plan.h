#pragma once

#include "lib/engine/engine.h"

namespace moelora::peft {

// What PeftModel.from_pretrained() makes of each adapter, given alone.
ServerPlan plan(const PlanRequest& request);

}  // namespace moelora::peft
