#pragma once

#include <string>
#include <vector>

#include "lib/base/tensor.h"
#include "lib/io/torch_archive.h"

namespace moelora {

// The tensors of a state dict that torch.save wrote (adapter_model.bin, .pt), lazy.
struct TorchFile {
  FilePtr file;
  TensorMap tensors;
  std::vector<std::string> warnings;
};

// Opens a torch.save zip archive whose content is one dict of names to tensors; nothing in it is
// executed (pickle.h). Tensors may share storages and be strided; together they may be as large as
// twice the file, or 256 MB where that is more. Refuses other content (a checkpoint with the dict
// inside, a whole module) with how to save the tensors alone. Throws Error.
TorchFile open_torch_file(const std::string& path, const TorchOptions& options = {});

}  // namespace moelora
