#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "lib/adapter/adapter.h"

namespace moelora {

// One line of the module table: modules of one name, rank and scale in several layers.
struct ModuleRow {
  std::string module;  // "self_attn.q_proj", "mlp.experts.gate_proj", "lm_head"
  std::string layers;  // "0-23", "1,3,5", "" outside the layers
  int64_t pairs = 0;   // low-rank pairs: experts count one each
  int64_t rank = 0;
  double alpha = 0, scale = 0;
  DType dtype = DType::F32;
  Shape a, b;                               // of one pair
  bool shared_a = false, shared_b = false;  // one factor for all experts
};

std::vector<ModuleRow> module_rows(const Adapter& adapter);

std::string module_table(const std::vector<ModuleRow>& rows, std::string_view layout);

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
  std::string dialect;  // an id of lib/adapter/dialect.h; "" for PEFT's
  std::string layout;   // "none" without expert factors, "unknown" when it cannot be decided
  std::string base;     // what the base model was opened from; "" without one
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
