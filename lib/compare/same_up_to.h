#pragma once

#include <optional>
#include <string>

#include "lib/adapter/adapter.h"
#include "lib/compare/weight_distance.h"

namespace moelora {

// What, done to adapter B, would make it adapter A: the mistakes that converters and trainers make.
// The text is for people ("gate and up exchanged"). nullopt when none of them explains it. A cause
// counts only when it explains every module that differs, within `tolerance`.
struct SameUpTo {
  std::string id;    // "expert-permutation"
  std::string text;  // "experts are in another order: expert 0 of A is expert 1 of B, ..."
};

// `diff` are the distances of a and b as they are. Reads the differing layers again, once for each
// cause that fits the first of them.
std::optional<SameUpTo> same_up_to(const Adapter& a, const Adapter& b, const WeightDiff& diff,
                                   double tolerance, int threads);

}  // namespace moelora
