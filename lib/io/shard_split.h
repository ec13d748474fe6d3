#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lib/io/header_plan.h"

namespace moelora {

struct Shard {
  std::string file;  // "model.safetensors", or "model-00001-of-00003.safetensors"
  std::vector<const NamedTensor*> tensors;
};

// Cuts `tensors` into shards as huggingface does: in name order, a new shard where the next tensor
// would pass `max_bytes` (0: no limit); a tensor above the limit gets a shard of its own. A shard
// also ends where its header would pass kHubHeaderBytes. No tensors give one empty shard.
std::vector<Shard> split_shards(const std::string& stem, const TensorMap& tensors,
                                uint64_t max_bytes);

}  // namespace moelora
