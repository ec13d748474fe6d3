#pragma once

#include <optional>
#include <string>

namespace moelora {

// What lies where an adapter was looked for.
struct FoundInstead {
  std::string what;    // "holds adapters in checkpoint-57, checkpoint-114", completes a path
  std::string advice;  // an instruction
};

// Of a path that is not there: an address, a link to nothing, a hub name that is in no cache.
FoundInstead instead_of_path(const std::string& path);

// Of a folder without an adapter's config or weights: adapters one level down, a repository of the
// hub's cache, the shards of a training (torch.distributed.checkpoint, DeepSpeed ZeRO), a packed or
// foreign file (.nemo, GGUF, zip, tar), a whole model. nullopt for none of these.
std::optional<FoundInstead> instead_in_folder(const std::string& folder);

}  // namespace moelora
