#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lib/adapter/adapter.h"
#include "lib/adapter/delta_pair.h"
#include "lib/base/low_rank.h"
#include "lib/base/progress.h"
#include "lib/compare/mistakes.h"

namespace moelora {

// How far two deltas of one place are apart, from the Gram matrices of their factors
// (lib/base/low_rank.h): distances below kResolution of the norms are rounding and reported as 0.
struct Distance {
  DeltaKey key;
  double norm_a = 0, norm_b = 0;  // |D1|, |D2|
  double apart = 0;               // |D1 - D2|
  double inner = 0;               // <D1, D2>
  // Participation ratio of the singular values, (sum s^2)^2 / sum s^4: 1 for rank one, r where all
  // r are equal; 0 of a zero delta.
  double effective_rank_a = 0, effective_rank_b = 0;
  bool identical = false;  // factors and scale are the same, bit for bit

  double relative() const;  // apart / norm_a; infinite where only norm_a is 0
  double cosine() const;    // 1 where both are 0, 0 where one is
};

// The participation ratio, of the sums of the singular values' squares and fourth powers.
double effective_rank(double squares, double fourths);

struct WeightDiff {
  std::vector<Distance> pairs;  // of places that both have, by key
  std::vector<DeltaKey> only_a, only_b;
  std::vector<std::string> shapes_differ;  // places whose deltas have different shapes, in words
};

struct DistanceOptions {
  int threads = 0;
  JobControl job;
};

// Streams: factors are read in batches of neighbours, each source byte once a batch.
WeightDiff weight_distances(const Deltas& a, const Deltas& b, const DistanceOptions& options);

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
