#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/io/weights.h"

namespace moelora {

// Files that hold what a rank of Megatron held: mp_rank_TT_PPP_EEE_adapter.pt (verl) and
// adapter_megatron_tpT_ppP_epE.pt (miles).

// The rank that a file's name says it is of.
struct RankFile {
  int64_t tensor = 0, expert = 0, pipeline = 0;  // of each kind of parallelism
  // mp_rank_00_001: the second number counts pipeline stages where there are any, else ranks of the
  // experts, which it is taken for here.
  bool may_be_pipeline = false;
  // As trainers do where the experts have several. Two numbers of verl's are of several ranks,
  // whichever they count.
  bool names_expert_rank = false;
};
std::optional<RankFile> parse_rank_file(std::string_view file_name);

// "FILE:NAME" of a tensor of ShardSet::ranks, taken apart.
struct RankTensorName {
  std::string_view file, name;
};
RankTensorName split_rank_name(std::string_view name);

// As ShardSet::ranks says, from the files `names`, not empty. Throws Error where one is missing or
// of a part that its name does not tell.
Weights open_rank_files(const std::string& folder, std::vector<std::string> names,
                        const InputOptions& options);

}  // namespace moelora
