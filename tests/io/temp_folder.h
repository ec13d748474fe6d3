#pragma once

#include <stdlib.h>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

#include "lib/base/error.h"

namespace moelora {

// A fresh folder that goes away with the object. Give a folder under "/dev/shm" to be on tmpfs.
class TempFolder {
 public:
  explicit TempFolder(const std::string& under = std::filesystem::temp_directory_path()) {
    std::string name = under + "/moelora.XXXXXX";
    if (mkdtemp(name.data()) == nullptr) throw Error(name, "cannot be made");
    path_ = std::filesystem::canonical(name);
  }
  ~TempFolder() {
    std::error_code ignored;
    std::filesystem::remove_all(path_, ignored);
  }
  TempFolder(const TempFolder&) = delete;
  TempFolder& operator=(const TempFolder&) = delete;

  std::string path(const std::string& name = "") const {
    return name.empty() ? path_ : path_ + "/" + name;
  }

  // Names in the folder, sorted; hidden ones too, so that a leftover temporary folder shows.
  std::vector<std::string> names() const {
    std::vector<std::string> out;
    for (const auto& entry : std::filesystem::directory_iterator(path_))
      out.push_back(entry.path().filename().string());
    std::sort(out.begin(), out.end());
    return out;
  }

 private:
  std::string path_;
};

}  // namespace moelora
