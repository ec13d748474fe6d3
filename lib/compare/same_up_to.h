#pragma once

#include <optional>
#include <string>

#include "lib/adapter/adapter.h"
#include "lib/compare/mistakes.h"
#include "lib/compare/weight_distance.h"

namespace moelora {

// What, done to adapter B, would make it adapter A: one of the table of mistakes.
// The text is for people ("gate and up exchanged"). nullopt when none of them explains it. A
// mistake counts only when it explains every module that differs, within `tolerance`.
struct SameUpTo {
  Mistake mistake;
  std::string text;  // "experts are in another order: expert 0 of A is expert 1 of B, ..."
};

// `diff` are the distances of a and b as they are. Reads the differing layers again, once for each
// mistake that fits the first of them.
std::optional<SameUpTo> same_up_to(const Adapter& a, const Adapter& b, const WeightDiff& diff,
                                   double tolerance, int threads);

}  // namespace moelora
