#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "lib/base/tensor.h"

namespace moelora {

using TensorList = std::span<const Tensor* const>;

// Elements [first, first + count) of tensor `item`, row-major.
struct Block {
  size_t item;
  int64_t first, count;
};

// Blocks that are evaluated together, because they share source bytes or because each alone is too
// little. Within `cost` bytes of memory a job can hold all its blocks and what they are made from.
struct Job {
  std::vector<Block> blocks;
  uint64_t cost = 0;
};

struct JobLimits {
  uint64_t target;  // what a job should cost
  uint64_t most;    // what a job may cost where cutting it would read source bytes twice
};

// Cuts the evaluation of `tensors` into jobs. Tensors that share source bytes (not merely a source:
// the experts of one stacked tensor lie apart) form a group. A group dearer than the target is cut
// into windows, each the same share of every tensor's rows, if no source byte falls into two
// windows; else it stays whole up to `most`, and beyond that is cut all the same. Groups whose
// tensors lie between each other's become one job up to `most`, because that writes its part of the
// file in one run; small ones that lie one after another are packed. The blocks of a tensor are in
// order: earlier jobs hold earlier rows. REQUIRES: dtypes of whole bytes; tensors in the order in
// which they lie in their files.
std::vector<Job> plan_jobs(TensorList tensors, const JobLimits& limits, int threads = 0);

}  // namespace moelora
