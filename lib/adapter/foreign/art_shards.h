#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/io/weights.h"

namespace moelora {

// The shards of OpenPipe/ART: adapter_model-RR-of-WW.safetensors, each beside a manifest,
// adapter_manifest-RR-of-WW.json, that says of every tensor whether and how it is a part.

struct ArtName {
  std::string suffix;  // "01-of-02"
  int64_t number, count;
};
// Of adapter_model-01-of-02.safetensors. Those of huggingface have five digits and an index.
std::optional<ArtName> parse_art_shard(std::string_view file_name);
bool is_art_manifest(std::string_view file_name);

// The tensors of all `shards`, not empty, each joined from its parts. `listing`: the names of the
// folder's files, sorted. Throws Error where a file or a part is missing.
Weights open_art_shards(const std::string& folder, const std::vector<ArtName>& shards,
                        const std::vector<std::string>& listing, const InputOptions& options);

}  // namespace moelora
