#pragma once

#include <string>
#include <vector>

#include "lib/engine/served_adapter.h"
#include "lib/io/file.h"

namespace moelora {

// An adapter's folder as a server finds it, with its values.
struct ServedFolder {
  ServedAdapter adapter;
  std::vector<TensorMap> values;  // of adapter.files, in their order; lazy
  std::vector<FilePtr> inputs;    // every file of it that was read
};

// `path`: the folder, or a weights file in it. Reads every *.safetensors of it, stray ones too;
// where there is none, what torch.save wrote (open_weights). A folder without adapter_config.json
// is one a server refuses, and is no Error here; files that cannot be read are.
ServedFolder open_served_folder(const std::string& path);

}  // namespace moelora
