#pragma once

#include <string>

#include "lib/engine/cause.h"
#include "lib/engine/peft/tensors.h"
#include "lib/engine/peft/wrap.h"

namespace moelora::peft {

// What PEFT has made when it looks for the places of tensors.
struct Injected {
  const Host& host;
  const Modules& modules;
  const Wrapped& wrapped;
  const Config& declared;  // as the file has it
  const Config& config;    // as PEFT has changed it
};

// Why nothing receives a tensor.
struct Loss {
  const Cause* cause;
  std::string detail;
};
Loss why_lost(const Incoming& incoming, const Injected& into);

}  // namespace moelora::peft
