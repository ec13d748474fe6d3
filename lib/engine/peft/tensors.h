#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/engine/peft/model.h"
#include "lib/engine/plan.h"
#include "lib/engine/served_adapter.h"

namespace moelora::peft {

// A tensor that load_state_dict is given: one of the file under the name that PEFT makes of it, or
// those of all experts joined.
struct Incoming {
  std::string key;  // below "base_model.model."; as the file spells it where it has no such prefix
  Shape shape;
  std::vector<std::string> tensors;  // of the file
  bool joined = false;
};

struct Renamed {
  std::vector<Incoming> incoming;
  std::optional<Refusal> refusal;  // where experts cannot be joined
  std::vector<std::string> refused;
};
Renamed rename_tensors(const std::vector<TensorHeader>& tensors, const Host& host,
                       const std::vector<std::string>& saved);

}  // namespace moelora::peft
