#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/base/error.h"
#include "lib/io/safetensors.h"
#include "lib/io/torch/torch_file.h"

namespace moelora {

// The tensors of an adapter or a model folder, from one file or from shards.
struct Weights {
  std::vector<SafetensorsFile> files;  // in shard order; their tensors have moved to the next line
  TensorMap tensors;                   // of all files together
  std::string index_path;              // "" when unsharded
  std::vector<std::string> warnings;   // unreferenced file, total_size differs ...
  std::optional<Error> unread_index;   // what is wrong with an index beside a file that counts
  bool pickled = false;                // files[0] is what torch.save wrote; its header is empty
};

// Opens `path`: a .safetensors file, what torch.save wrote (torch_file.h), an *.index.json, or a
// folder that holds (in this order of preference) STEM.safetensors or STEM.safetensors.index.json
// for one of `stems` ({"adapter_model"} or {"model", ...}), then STEM.bin or STEM.pt; a folder with
// exactly one index or one .safetensors file of another stem is accepted too. A file's bytes say
// what it is, not its name. Checks the full rule set for indexes (facts: weight_map is string to
// string; no path that leaves the folder, Windows spellings included; same extension; every shard
// present, regular and sound, none a link that leaves the folder; every tensor where the index
// says; no tensor in two shards). An index beside a STEM.safetensors of its stem is not read for
// its tensors; what would be wrong with it is unread_index, and a warning. Throws Error.
Weights open_weights(const std::string& path, const std::vector<std::string>& stems,
                     const InputOptions& options = {});

}  // namespace moelora
