#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/io/weights.h"

namespace moelora {

// Files that the ranks of a training wrote apart, read as one adapter.
enum class ShardSet : uint8_t {
  none,   // whole files, or the shards of huggingface with an index
  art,    // OpenPipe/ART's shards with manifests, joined
  ranks,  // of Megatron's ranks: what a tensor is a part of, only its module tells, so that they
          // stay apart, named "FILE:NAME" without the wrappers of training
};

struct OpenedSet {
  ShardSet kind;
  Weights weights;
};

// Throws Error for a file that is one of several of such a set, all of which lie in its folder:
// alone it holds a part of the adapter. `listing`: as below.
void refuse_part_of_set(const std::string& folder, const std::string& file,
                        const std::vector<std::string>& listing);

// nullopt where the folder holds no such set, or weights of a usual name beside it, which count
// then. `listing`: the names of its files, sorted. Throws Error for a set that is not whole.
std::optional<OpenedSet> open_shard_set(const std::string& folder,
                                        const std::vector<std::string>& listing,
                                        const InputOptions& options = {});

}  // namespace moelora
