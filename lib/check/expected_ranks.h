#pragma once

#include <cstdint>
#include <vector>

#include "lib/check/subject/subject.h"

namespace moelora {

// The rank that adapter_config.json gives a module, and the one its factors have (of one expert
// where experts are stacked). A factor of the wrong shape has no rank: others say so.
struct RankCheck {
  int tensor;        // index in AdapterParts::tensors
  int64_t found;     // 0: rows or columns that do not divide by the experts
  int64_t expected;  // after rank_pattern
};

// Those of every lora_A and lora_B whose rank is not the expected one. REQUIRES a parsed config.
std::vector<RankCheck> wrong_ranks(const Subject& subject);

}  // namespace moelora
