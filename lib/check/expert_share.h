#pragma once

#include <optional>

#include "lib/check/stacked_file.h"

namespace moelora {

// How many experts pair `index` of a stacked file holds, where that is an even share of the base
// model's at the config's rank: what one rank of expert parallelism saves. nullopt for the whole,
// and for rows that no such share explains.
std::optional<int64_t> local_experts(const StackedFile& file, size_t index, const Subject& subject);

}  // namespace moelora
