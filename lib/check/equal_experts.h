#pragma once

#include <cstdint>
#include <optional>
#include <vector>

#include "lib/adapter/adapter.h"

namespace moelora {

// Factors that several experts of a layer have in common, bit by bit.
struct EqualExperts {
  struct Side {
    Projection projection;
    moelora::Side side;
    int64_t distinct;  // factors a layer, of E experts: the most of any layer
  };
  std::vector<Side> sides;   // with fewer factors than experts
  uint64_t spare_bytes = 0;  // of all copies but the first

  // All experts share exactly what a shared-outer adapter holds once.
  bool is_shared_outer() const;
};

// nullopt where experts differ, as they do after training on their own tokens. Looks at the first
// layer's factors; those that are equal there are compared in all layers. Experts whose factor is
// zero are left out: they were not trained. Throws Error when bytes cannot be read.
std::optional<EqualExperts> find_equal_experts(const Adapter& adapter);

}  // namespace moelora
