#include "lib/engine/served_adapter.h"

#include <filesystem>

namespace moelora {
namespace {

// "/a/b/" and "." have no last component of their own.
std::string last_component(const std::string& folder) {
  std::error_code ignored;
  return std::filesystem::weakly_canonical(folder, ignored).filename().string();
}

}  // namespace

ServedAdapter::ServedAdapter() = default;
ServedAdapter::ServedAdapter(const ServedAdapter&) = default;
ServedAdapter::ServedAdapter(ServedAdapter&&) noexcept = default;
ServedAdapter& ServedAdapter::operator=(const ServedAdapter&) = default;
ServedAdapter& ServedAdapter::operator=(ServedAdapter&&) noexcept = default;
ServedAdapter::~ServedAdapter() = default;

ServedAdapter served_adapter(const AdapterFolder& folder) {
  ServedAdapter out;
  out.name = last_component(folder.folder);
  out.folder = folder.folder;
  out.has_config = folder.has_config;
  out.config = folder.config;
  out.added_tokens = folder.added_tokens;
  for (const FolderFile& file : folder.files) {
    WeightFile& headers = out.files.emplace_back();
    headers.name = file.name;
    headers.tensors.reserve(file.tensors.size());
    for (const auto& [name, tensor] : file.tensors)
      headers.tensors.push_back({name, tensor.dtype(), tensor.shape()});
  }
  return out;
}

}  // namespace moelora
