#pragma once

#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace moelora {

// Replacements of runs of whole path components: {"mlp", "block_sparse_moe"} turns
// "model.layers.0.mlp.gate" into "model.layers.0.block_sparse_moe.gate" and leaves "mlp_gate".
// Applied in order, each at its first match.
using Renames = std::vector<std::pair<std::string, std::string>>;

std::string renamed(std::string path, const Renames& renames);

// As renamed(), but only a match at the start of the path counts, and the first one ends it.
std::string prefix_renamed(const std::string& path, const Renames& renames);

// `pattern` with "{layer}" replaced.
std::string with_layer(const std::string& pattern, int layer);

}  // namespace moelora
