#pragma once

#include <map>
#include <string>
#include <utility>
#include <vector>

#include "lib/check/subject/subject.h"

namespace moelora {

// Which experts of which layers have factors.
struct ExpertCoverage {
  using Key = std::pair<int, std::string>;
  struct Place {
    std::string stem;        // "model.layers.3.mlp.experts"
    std::vector<bool> held;  // by expert; empty: all of them, in one tensor
  };
  // By layer and the projection's name in the file's own words ("gate_proj"; "" for a stacked
  // pair).
  std::map<Key, Place> places;

  std::vector<int> layers() const;  // that have any, sorted
};

// The place of a routed-expert factor. REQUIRES tensor.expert.
ExpertCoverage::Key coverage_key(const NamedTensor& tensor);

// `experts` is E of the base model; numbers beyond it are left out (MOD004).
ExpertCoverage expert_coverage(const Subject& subject, int64_t experts);

}  // namespace moelora
