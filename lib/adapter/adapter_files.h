#pragma once

#include <map>
#include <string>
#include <vector>

#include "lib/adapter/adapter_folder.h"
#include "lib/adapter/config/adapter_config.h"
#include "lib/base/tensor.h"
#include "lib/io/file.h"

namespace moelora {

struct Dialect;

// An adapter as it lies on disk, before anything is made of its names.
struct AdapterFiles {
  AdapterConfig config;  // PEFT's
  // Whose names, axes and config these are; null for PEFT's. translate() of lib/adapter/dialect.h
  // puts `tensors` into PEFT's.
  const Dialect* dialect = nullptr;
  Json own_config;         // of a dialect: adapter_config.json as it lies there
  bool form_said = false;  // by --from: no dialect is looked for
  TensorMap tensors;
  ShardSet set = ShardSet::none;  // that they were read from
  // After a translation: what the files call a tensor, by its name in `tensors`.
  std::map<std::string, std::string> own_names;
  std::string folder;
  InputOptions how;                   // its files were opened
  bool in_whole_state = false;        // the files hold a whole model too (whole_state.h)
  std::vector<FilePtr> weights;       // the files that hold `tensors`
  std::vector<std::string> warnings;  // about them (lib/io/weights.h)
  std::vector<std::string> notes;     // what was left out of their names

  // Whether `tensors` are those of the files, by their names there.
  bool as_on_disk() const { return dialect == nullptr && !in_whole_state; }
  InputPath config_path() const { return {folder, std::string(kConfigName), how.links}; }
};

}  // namespace moelora
