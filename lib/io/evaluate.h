#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "lib/base/tensor.h"
#include "lib/io/tensor_jobs.h"

namespace moelora {

struct EvaluateOptions {
  int threads = 0;               // 0: all cores
  uint64_t memory = 160u << 20;  // bytes of buffers in flight, all threads together
  bool digests = true;
};

// Where the bytes of a tensor go: `offset` in `file`, a number of the caller's.
struct Place {
  size_t file = 0;
  uint64_t offset = 0;
};

// Called from several threads at once. Runs never overlap; together they are all bytes of all
// tensors. Neighbours come as one run where they were evaluated together.
using TakeBytes =
    std::function<void(size_t file, uint64_t offset, std::span<const std::byte> bytes)>;

// Evaluates all tensors, each source byte read once where `memory` allows, in about the order of
// `tensors`, which is best the order of their places. Tensor i goes to places[i]; without `take`
// there need be none. Returns the XXH3-128 of every tensor ("" without options.digests). Throws
// Error; of several that of the first job.
std::vector<std::string> evaluate_tensors(TensorList tensors, std::span<const Place> places,
                                          const EvaluateOptions& options, const TakeBytes& take);

// XXH3-128 of every tensor's bytes (dtype and shape are not part of it), evaluated together as the
// writer would: tensors that share source bytes are produced in one pass.
std::map<std::string, std::string> digest_tensors(const TensorMap& tensors, int threads);

}  // namespace moelora
