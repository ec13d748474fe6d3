#pragma once

#include <string>

#include "lib/engine/cause.h"
#include "lib/engine/peft/tensors.h"
#include "lib/engine/peft/wrap.h"

namespace moelora::peft {

// Why nothing receives a tensor.
struct Loss {
  const Cause* cause;
  std::string detail;
};
Loss why_lost(const Incoming& incoming, const Injected& into);

}  // namespace moelora::peft
