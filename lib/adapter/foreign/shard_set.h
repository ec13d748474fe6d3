#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/io/weights.h"

namespace moelora {

// Adapters that the ranks of a training wrote apart, a file each, as one map of lazy tensors. Two
// kinds are known:
//
//  - OpenPipe/ART: adapter_model-RR-of-WW.safetensors, each beside a manifest,
//    adapter_manifest-RR-of-WW.json, that says of every tensor whether and how it is a part. They
//    are joined here and named NAME + "@art" (dialects/art.cpp).
//  - Files that hold what a rank of Megatron held: mp_rank_TT_PPP_EEE_adapter.pt (verl) and
//    adapter_megatron_tpT_ppP_epE.pt (miles). What a tensor is part of, only its module tells, so
//    that they stay apart here, named "FILE:NAME" without the wrappers of training
//    (dialects/megatron_bridge.cpp).

inline constexpr std::string_view kArtShard = "@art";

// The rank that a file's name says it is of.
struct RankFile {
  int64_t tensor = 0, expert = 0, pipeline = 0;  // of each kind of parallelism
  // mp_rank_00_001: the second number counts pipeline stages where there are any, else ranks of the
  // experts, which it is taken for here.
  bool may_be_pipeline = false;
  bool names_expert_rank = false;  // as trainers do where the experts have several
};
std::optional<RankFile> parse_rank_file(std::string_view file_name);

// "FILE:NAME" taken apart; the file is "" where the name begins with none.
struct RankTensorName {
  std::string_view file, name;
};
RankTensorName split_rank_name(std::string_view name);

// Throws Error for a file that is one of several of such a set, all of which lie in its folder:
// alone it holds a part of the adapter. `listing`: as below.
void refuse_part_of_set(const std::string& folder, const std::string& file,
                        const std::vector<std::string>& listing);

// nullopt where the folder holds no such set, or weights of a usual name beside it, which count
// then. `listing`: the names of its files, sorted. Throws Error for a set that is not whole.
std::optional<Weights> open_shard_set(const std::string& folder,
                                      const std::vector<std::string>& listing,
                                      const InputOptions& options = {});

}  // namespace moelora
