#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "lib/adapter/load_options.h"
#include "lib/adapter/summary.h"

namespace moelora {

struct TensorInfo {
  std::string name;
  DType dtype;
  Shape shape;
  uint64_t bytes;
};

// What is in a path: an adapter, or the tensors of any other safetensors file or model folder.
struct Inspection {
  std::string path;
  bool is_adapter = false;
  size_t files = 0;
  uint64_t bytes = 0;
  std::vector<TensorInfo> tensors;
  std::vector<std::pair<std::string, std::string>> metadata;  // of the files, where no adapter
  std::vector<std::string> notes;  // what was assumed; of no adapter: warnings of its reader

  // Of an adapter.
  std::string layout;  // "none" without expert factors, "unknown" when it cannot be decided
  std::string base;    // what the base model was opened from; "" without one
  int64_t r = 0;
  double lora_alpha = 0;
  bool use_rslora = false;
  std::string peft_version;
  int64_t experts = 0;
  std::optional<StackedForm> stacked;
  std::vector<ModuleRow> modules;
  std::vector<std::pair<std::string, std::string>> extras;  // name, kind
  std::string problem, hint;  // why the adapter cannot be interpreted; "" where it can
};

// Throws Error only for what is malformed or absent; an adapter that cannot be interpreted (a mixed
// layout, undecidable roles) is described with the reason.
Inspection inspect(const std::string& path, const LoadOptions& options = {});

std::string inspection_text(const Inspection& inspection);
std::string inspection_json(const Inspection& inspection);  // schemas/inspect.schema.json

}  // namespace moelora
