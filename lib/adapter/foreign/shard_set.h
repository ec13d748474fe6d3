#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/adapter/adapter_folder.h"
#include "lib/io/weights.h"

namespace moelora {

// Adapters that the ranks of a training wrote apart, a file each, as one map of lazy tensors
// (ShardSet of adapter_folder.h): art_shards.h and rank_files.h.

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

// What to do where a file is missing; where files contradict each other.
inline constexpr std::string_view kCopyAllRanks = "copy the files of all ranks into the folder";
inline constexpr std::string_view kCopyOneSave =
    "copy the files of all ranks of one save into the folder";

}  // namespace moelora
