#pragma once

#include <functional>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "lib/compare/bits/fault.h"
#include "lib/compare/bits/pairing.h"

namespace moelora::packed {

// What is wrong with one pair.
struct PairFault {
  FaultKind kind;
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
  std::map<FaultKind, Fault> faults_;
  std::map<FaultKind, std::set<std::string>> tensors_;
};

}  // namespace moelora::packed
