#include "lib/engine/served_folder.h"

#include <algorithm>
#include <filesystem>

#include "lib/base/error.h"
#include "lib/io/folder_listing.h"
#include "lib/io/weights.h"

namespace moelora {
namespace {

namespace fs = std::filesystem;

std::string folder_of(const std::string& path) {
  std::error_code ignored;
  if (!fs::exists(path, ignored))
    throw Error(path, "does not exist", "name a folder with adapter_config.json");
  if (fs::is_directory(path, ignored)) return path;
  const std::string parent = fs::path(path).parent_path().string();
  return parent.empty() ? "." : parent;
}

// "/a/b/" and "." have no last component of their own.
std::string last_component(const std::string& folder) {
  std::error_code ignored;
  return fs::weakly_canonical(folder, ignored).filename().string();
}

class Reader {
 public:
  explicit Reader(const std::string& path) : listing_(files_in(folder_of(path))) {
    out_.adapter.folder = folder_of(path);
    out_.adapter.name = last_component(out_.adapter.folder);
  }

  ServedFolder read() {
    read_config();
    const auto names = ending_in(listing_, {kSafetensorsEnding});
    for (const std::string& name : names) {
      SafetensorsFile file = open_safetensors(path_of(name));
      add(name, file.file, std::move(file.tensors));
    }
    if (names.empty()) read_pickle();
    return std::move(out_);
  }

 private:
  std::string path_of(const std::string& name) const {
    return join_path(out_.adapter.folder, name);
  }

  bool lists(const std::string& name) const {
    return std::binary_search(listing_.begin(), listing_.end(), name);
  }

  void read_config() {
    ServedAdapter& adapter = out_.adapter;
    adapter.has_config = lists("adapter_config.json");
    if (adapter.has_config) {
      adapter.config = read_json_file(path_of("adapter_config.json"));
      out_.inputs.push_back(File::open(path_of("adapter_config.json")));
    }
    if (!lists("added_tokens.json")) return;
    try {  // servers only warn where this file is no JSON
      adapter.added_tokens = read_json_file(path_of("added_tokens.json"));
    } catch (const Error&) {
    }
  }

  void read_pickle() {
    Weights weights = open_weights(out_.adapter.folder, {"adapter_model"});
    const FilePtr file = weights.files.front().file;
    add(fs::path(file->path()).filename().string(), file, std::move(weights.tensors));
  }

  void add(const std::string& name, const FilePtr& file, TensorMap tensors) {
    WeightFile& headers = out_.adapter.files.emplace_back();
    headers.name = name;
    headers.tensors.reserve(tensors.size());
    for (const auto& [tensor, value] : tensors)
      headers.tensors.push_back({tensor, value.dtype(), value.shape()});
    out_.values.push_back(std::move(tensors));
    out_.inputs.push_back(file);
  }

  std::vector<std::string> listing_;
  ServedFolder out_;
};

}  // namespace

ServedFolder open_served_folder(const std::string& path) { return Reader(path).read(); }

}  // namespace moelora
