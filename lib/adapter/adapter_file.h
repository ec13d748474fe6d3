#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/adapter/adapter_files.h"
#include "lib/adapter/layout.h"
#include "lib/model/base_model.h"

namespace moelora {

// What tensors and their config mean.
struct Interpretation {
  Adapter adapter;
  const Layout* layout = nullptr;  // null: no routed-expert factors
  std::vector<std::string> notes;  // what was assumed, for people
  // Tensors left out: a second spelling of a factor with the same bytes.
  std::vector<std::string> twins;
};

struct LoadedAdapter : Interpretation {
  AdapterFiles files;
  std::optional<BaseModel> base;
};

// `path`: a folder with adapter_config.json, or a weights file beside one. `from` may name a
// dialect (lib/adapter/dialect.h), which is detected otherwise. Throws Error: the first problem of
// read_adapter_folder.
AdapterFiles open_adapter(const std::string& path, const InputOptions& options = {},
                          const std::string& from = "");

// The base model to read an adapter with: options.base, else base_model_name_or_path where that is
// a model folder here or a known hub name, else none.
std::optional<BaseModel> base_for(const AdapterConfig& config, const LoadOptions& options,
                                  std::vector<std::string>& notes);

// Makes the canonical adapter of named tensors; `spec` is null without a base model, `from` a
// layout id, or "" or a dialect's to detect it. `experts`: expert_tensors(tensors), where the
// caller has them. Throws Error.
Interpretation interpret_tensors(const TensorMap& tensors, std::span<const ExpertTensor> experts,
                                 const AdapterConfig& config, const ModelSpec* spec,
                                 const std::string& from, const ReadOptions& read);

// The same of opened files. What is wrong with a translated tensor is said with the name that it
// has in the file, too.
Interpretation interpret_files(const AdapterFiles& files, const ModelSpec* spec,
                               const std::string& from, const ReadOptions& read);
LoadedAdapter interpret_adapter(AdapterFiles files, std::optional<BaseModel> base,
                                const std::string& from, const ReadOptions& read);

// Throws Error where a factor is no float: integers and FP8 codes mean nothing without their
// scales, which no adapter's file has.
void refuse_codes(const TensorMap& tensors, DType to);

// All of it, from a path or from opened files. `dtype`: every factor cast to it; unset keeps.
LoadedAdapter load_adapter(const std::string& path, const LoadOptions& options,
                           std::optional<DType> dtype = std::nullopt);
LoadedAdapter load_adapter(AdapterFiles files, const LoadOptions& options,
                           std::optional<DType> dtype = std::nullopt);

// An adapter that was never in a file: `tensors` by the names that its trainer would write,
// `config` what its adapter_config.json would hold. Read like a folder (open_adapter): wrappers of
// training are left out of names, dialects are recognized. Throws Error.
AdapterFiles adapter_in_memory(TensorMap tensors, Json config, const std::string& from = "");

}  // namespace moelora
