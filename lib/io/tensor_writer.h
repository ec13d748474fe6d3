#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "lib/base/progress.h"
#include "lib/base/tensor.h"
#include "lib/io/output.h"

namespace moelora {

struct WriteOptions {
  uint64_t max_shard_size = 0;   // 0: one file, unless its header would pass 25 MB
  int threads = 0;               // 0: all cores
  uint64_t memory = 160u << 20;  // bytes of buffers in flight, all threads together
  bool digests = true;           // XXH3-128 of every tensor
  std::map<std::string, std::string> metadata = {{"format", "pt"}};
  JobControl job = {};
};

struct WrittenTensor {
  std::string file;    // "adapter_model.safetensors" or the shard's name
  std::string digest;  // XXH3-128 of the tensor's bytes, 32 hex digits; "" without digests
};

struct WrittenWeights {
  std::vector<std::string> files;                // in shard order, index last when there is one
  std::map<std::string, WrittenTensor> tensors;  // by name
  uint64_t bytes = 0;                            // tensor bytes written
};

// Writes `tensors` as STEM.safetensors (or shards STEM-00001-of-0000N.safetensors and
// STEM.safetensors.index.json) into the folder. Streaming: sizes are final before the first byte;
// outputs that share source bytes are produced together, so each source byte is read once; memory
// stays within options.memory whatever the tensors' sizes. Same tensors, same bytes, whatever the
// number of threads. A tensor named "__metadata__" is refused.
WrittenWeights write_weights(OutputFolder& out, const std::string& stem, const TensorMap& tensors,
                             const WriteOptions& options);

// ---- the plan of a file, without writing one ----

struct Shard {
  std::string file;  // "model.safetensors", or "model-00001-of-00003.safetensors"
  std::vector<const TensorMap::value_type*> tensors;
};

// Cuts `tensors` into shards as huggingface does: in name order, a new shard where the next tensor
// would pass `max_bytes` (0: no limit); a tensor above the limit gets a shard of its own. A shard
// also ends where its header would pass kHubHeaderBytes. No tensors give one empty shard.
std::vector<Shard> split_shards(const std::string& stem, const TensorMap& tensors,
                                uint64_t max_bytes);

// The canonical safetensors header (as Python's safetensors writes it: tensors by dtype
// descending, then name; no spaces; padded to a multiple of 8), and where each tensor goes.
struct HeaderPlan {
  std::string header;                                 // the 8 length bytes included
  std::vector<const TensorMap::value_type*> tensors;  // in the order of the file
  std::vector<uint64_t> begin;                        // absolute offset of each
  uint64_t file_size = 0;
};
HeaderPlan plan_header(std::vector<const TensorMap::value_type*> tensors,
                       const std::map<std::string, std::string>& metadata, int threads = 0);

}  // namespace moelora
