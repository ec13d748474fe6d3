#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/engine/plan.h"
#include "lib/engine/vllm/causes.h"
#include "lib/engine/vllm/load/python.h"

namespace moelora::vllm {

// A PlanEvent whose tensors are still indices into the weights file.
struct Fault {
  const Cause* cause;
  Effect effect = Effect::refused;
  std::string detail;
  std::vector<uint32_t> tensors;  // empty: the adapter as a whole
  std::optional<Refusal> refusal;
};

inline Fault refused(const Cause* cause, std::string_view stage, const Raised& raised,
                     std::string detail, std::vector<uint32_t> tensors = {}) {
  return {cause, Effect::refused, std::move(detail), std::move(tensors),
          Refusal{std::string(stage), raised.type, raised.text, false}};
}

}  // namespace moelora::vllm
