#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "lib/base/tensor.h"
#include "lib/io/file.h"
#include "lib/io/torch/pickle.h"

namespace moelora {

struct TorchOptions {
  bool ignore_crc = false;  // --ignore-zip-crc
};

// A file that torch.save wrote as a zip archive: ROOT/data.pkl and the bytes of each storage in
// ROOT/data/KEY. Immutable; tensors made of it read the file when they are read.
struct TorchArchive {
  FilePtr file;
  std::shared_ptr<const std::string> pickle_bytes;  // what the texts of `pickle` are views of
  Pickle pickle;
  std::vector<uint64_t> storage_begin;  // where each storage of `pickle` lies in the file
  std::vector<std::string> warnings;

  // A tensor node of the pickle, lazy; `name` is its name for messages and reports.
  Tensor tensor(const PickleValue& value, const std::string& name) const;
};

// Opens the archive and checks all that the directory, the pickle and the records say against each
// other, and every record's CRC-32 (one pass over the file, on all threads); an archive without any
// CRC (torch.serialization.set_crc32_options(False)) gets a warning. Refuses, each with its own
// words and how to save the file again: TorchScript archives, other byte orders, records that
// torch.save does not write, storages without a record or of another size, records nothing uses.
// Throws Error.
TorchArchive open_torch_archive(FilePtr file, const TorchOptions& options = {});

// The tensors of a state dict that torch.save wrote (adapter_model.bin, .pt), lazy.
struct TorchFile {
  FilePtr file;
  TensorMap tensors;
  std::vector<std::string> warnings;
};

// Opens a torch.save zip archive whose content is one dict of names to tensors, or a trainer's
// checkpoint with such a dict under "adapter_state_dict", "module", "state_dict",
// "model_state_dict" or "model", whose other parts are not looked at; nothing in it is executed
// (pickle.h). Tensors may share storages and be strided; together they may be as large as twice the
// file, or 256 MB where that is more. Refuses other content (shards, a whole module) with how to
// save the tensors alone. Throws Error.
TorchFile open_torch_file(const InputPath& path, const TorchOptions& options = {});

}  // namespace moelora
