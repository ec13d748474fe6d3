#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/adapter/adapter_folder.h"
#include "lib/base/tensor.h"
#include "lib/io/json.h"

namespace moelora {

struct TensorHeader {
  std::string name;
  DType dtype;
  Shape shape;
};

// A weights file a server may read, whole folder or not: name in the folder and its tensors, sorted
// by name.
struct WeightFile {
  std::string name;
  std::vector<TensorHeader> tensors;
};

// What a server finds when it is asked to load an adapter. Names, shapes and the config only: no
// value. `config` is what adapter_config.json holds, unchecked: engines look at it as the server's
// own code does.
struct ServedAdapter {
  // Compiled once in the source file rather than in every file that uses it.
  ServedAdapter();
  ServedAdapter(const ServedAdapter&);
  ServedAdapter(ServedAdapter&&) noexcept;
  ServedAdapter& operator=(const ServedAdapter&);
  ServedAdapter& operator=(ServedAdapter&&) noexcept;
  ~ServedAdapter();

  std::string name;         // as the server's messages call it: the folder's last component
  std::string folder;       // as its messages print it
  bool has_config = false;  // adapter_config.json exists and is JSON
  Json config;
  std::vector<WeightFile> files;     // every weights file of the folder, sorted by name
  std::optional<Json> added_tokens;  // added_tokens.json, where there is one
};

// The same of a folder on disk.
ServedAdapter served_adapter(const AdapterFolder& folder);

}  // namespace moelora
