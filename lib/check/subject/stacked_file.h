#pragma once

#include <optional>
#include <vector>

#include "lib/adapter/stacked_pairs.h"
#include "lib/check/subject/subject.h"

namespace moelora {

// What a file of PEFT's target_parameters says of itself: its pairs, which parameter each is, and
// which side lora_A is on.
struct StackedFile {
  std::vector<StackedPair> pairs;  // refer to Subject::experts
  std::optional<StackedReading> reading;
  // Without a reading: both sides would do; or none does, for which `problem` is the reason.
  bool ambiguous_roles = false;
  std::optional<Error> problem;
};

// Both of every pair.
std::vector<std::string> names_of(const StackedFile& file);

// nullopt for an adapter of another layout, or whose config cannot be read.
std::optional<StackedFile> stacked_file(const Subject& subject);

// The path that PEFT's patterns and targets name the parameter of pair `index` by:
// "model.layers.0.mlp.experts.gate_up_proj". REQUIRES a reading.
std::string parameter_path(const StackedFile& file, size_t index, const ModelSpec* spec);

// E as the base model or the rows of the first pair have it; 0 when the rank does not divide them.
int64_t stacked_experts(const StackedFile& file, const Subject& subject);

// How many experts pair `index` of a stacked file holds, where that is an even share of the base
// model's at the config's rank: what one rank of expert parallelism saves. nullopt for the whole,
// and for rows that no such share explains.
std::optional<int64_t> local_experts(const StackedFile& file, size_t index, const Subject& subject);

}  // namespace moelora
