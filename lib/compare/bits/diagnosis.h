#pragma once

#include <cstdint>
#include <set>
#include <string>
#include <vector>

#include "lib/compare/bits/names.h"
#include "lib/compare/mistakes.h"
#include "lib/model/model_spec.h"

namespace moelora::packed {

// One thing that is wrong, and everywhere it is.
struct Fault {
  Mistake mistake = Mistake::unknown;
  std::vector<int> layers;              // sorted; empty for dense modules
  std::vector<Projection> projections;  // sorted
  std::vector<Side> sides;              // sorted
  std::vector<int64_t> experts;         // sorted, each once over all layers; empty for dense ones
  std::vector<std::string> modules;     // dense ones, sorted
  std::vector<std::string> tensors;     // of the packed adapter (of the source: missing), sorted
  int64_t pairs = 0;                    // how many pairs of A and B it concerns
  std::string first;                    // "layer 3, expert 7, gate_proj lora_B"
  std::string detail;                   // numbers: "alpha/r 2 became 4", element and values
  double delta_error = 0;               // largest ||dW' - dW|| / ||dW|| among them; 0: not known

  std::string text() const;  // one line: what, where, how much
};

struct Pairings;
struct BitPass;
struct PairId;

// What is wrong with `different`, the pairs that neither bits nor products explain: every pair
// belongs to one fault. Experts of one layer that differ alike are looked at by sample. `rounding`:
// the error of a delta that rounding alone may cause.
std::vector<Fault> diagnose(const Pairings& pairings, const BitPass& bits,
                            const std::set<PairId>& different, double rounding);

}  // namespace moelora::packed
