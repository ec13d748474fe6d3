#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "lib/compare/bits/names.h"
#include "lib/compare/bits/pairing.h"
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

// What is wrong with one pair.
struct PairFault {
  Mistake mistake;
  std::vector<Side> sides;
  std::string detail = {};
};

// Gathers pairs with the same fault.
class FaultList {
 public:
  FaultList(const Table& packed, const Table& source) : packed_(packed), source_(source) {}

  // `measure` gives the error of the pair's delta; it is asked for the first pairs of a fault only.
  void add(const Pairing& pairing, int64_t expert, const PairFault& fault,
           const std::function<std::optional<double>()>& measure);

  std::vector<Fault> faults() const;  // that of the most pairs first

 private:
  void add_place(const Pairing& pairing, int64_t expert, const PairFault& one, Fault& fault);
  void add_tensors(const Pairing& pairing, int64_t expert, const PairFault& one);

  const Table &packed_, &source_;
  std::map<Mistake, Fault> faults_;
  std::map<Mistake, std::set<std::string>> tensors_;
};

}  // namespace moelora::packed
