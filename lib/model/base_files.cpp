#include "lib/model/base_files.h"

#include <algorithm>
#include <array>
#include <cstdint>
#include <filesystem>
#include <string_view>

namespace moelora {
namespace {

namespace fs = std::filesystem;

bool ends_with(std::string_view text, std::string_view end) {
  return text.size() >= end.size() && text.substr(text.size() - end.size()) == end;
}

bool is_weights(std::string_view name) {
  static constexpr std::array<std::string_view, 9> kEndings = {
      ".safetensors", ".safetensors.index.json",
      ".bin",         ".bin.index.json",
      ".pt",          ".pth",
      ".gguf",        ".h5",
      ".msgpack"};
  return std::any_of(kEndings.begin(), kEndings.end(),
                     [&](std::string_view end) { return ends_with(name, end); });
}

bool is_carried(const fs::directory_entry& entry, const std::string& name) {
  std::error_code error;
  return name[0] != '.' && entry.is_regular_file(error) &&
         entry.file_size(error) <= kMaxCarriedBytes && !is_weights(name);
}

}  // namespace

std::vector<CarriedFile> other_files(const std::string& folder,
                                     std::vector<std::string>& left_out) {
  std::vector<CarriedFile> out;
  std::error_code error;
  for (const fs::directory_entry& entry : fs::directory_iterator(folder, error)) {
    const std::string name = entry.path().filename().string();
    const bool converted = name == "config.json" || ends_with(name, ".safetensors") ||
                           ends_with(name, ".safetensors.index.json");
    if (converted) continue;
    if (is_carried(entry, name))
      out.push_back({name, entry.path().string()});
    else
      left_out.push_back(name);
  }
  std::sort(out.begin(), out.end(),
            [](const CarriedFile& a, const CarriedFile& b) { return a.name < b.name; });
  std::sort(left_out.begin(), left_out.end());
  return out;
}

bool stays_as_it_is(const std::string& tensor_name) {
  return ends_with(tensor_name, "e_score_correction_bias");
}

}  // namespace moelora
