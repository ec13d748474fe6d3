#include "tests/engine/served_from_folder.h"

#include <filesystem>

#include "lib/io/file.h"
#include "lib/io/safetensors.h"

namespace moelora::test {
namespace {

namespace fs = std::filesystem;

struct FolderFile {
  std::string name;
  TensorMap tensors;
};

std::vector<FolderFile> weight_files(const std::string& folder) {
  std::vector<FolderFile> out;
  for (const std::string& name : files_in(folder)) {
    if (name.ends_with(".safetensors"))
      out.push_back({name, open_safetensors(join_path(folder, name)).tensors});
    if (name.ends_with(".bin"))
      out.push_back({name, open_safetensors(folder.substr(0, folder.rfind("_bin")) +
                                            "/adapter_model.safetensors")
                               .tensors});
  }
  return out;
}

}  // namespace

ServedAdapter served_from_folder(const std::string& folder) {
  ServedAdapter out;
  out.name = fs::path(folder).filename().string();
  out.folder = folder;
  out.has_config = fs::exists(folder + "/adapter_config.json");
  if (out.has_config) out.config = read_json_file(folder + "/adapter_config.json");
  if (fs::exists(folder + "/added_tokens.json"))
    out.added_tokens = read_json_file(folder + "/added_tokens.json");
  for (const FolderFile& found : weight_files(folder)) {
    WeightFile& file = out.files.emplace_back();
    file.name = found.name;
    for (const auto& [name, tensor] : found.tensors)
      file.tensors.push_back({name, tensor.dtype(), tensor.shape()});
  }
  return out;
}

std::vector<TensorMap> values_from_folder(const std::string& folder) {
  std::vector<TensorMap> out;
  for (FolderFile& file : weight_files(folder)) out.push_back(std::move(file.tensors));
  return out;
}

}  // namespace moelora::test
