#include "tests/engine/served_from_folder.h"

#include <filesystem>

#include "lib/io/folder_listing.h"
#include "lib/io/safetensors.h"

namespace moelora::test {
namespace {

namespace fs = std::filesystem;

void add_file(ServedAdapter& out, const std::string& path, const std::string& name) {
  WeightFile& file = out.files.emplace_back();
  file.name = name;
  const SafetensorsFile opened = open_safetensors(path);
  for (const auto& [tensor, value] : opened.tensors)
    file.tensors.push_back({tensor, value.dtype(), value.shape()});
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
  for (const std::string& name : files_in(folder)) {
    if (name.ends_with(".safetensors")) add_file(out, join_path(folder, name), name);
    if (name.ends_with(".bin"))
      add_file(out, folder.substr(0, folder.rfind("_bin")) + "/adapter_model.safetensors", name);
  }
  return out;
}

}  // namespace moelora::test
