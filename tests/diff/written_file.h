#pragma once

#include <filesystem>
#include <fstream>
#include <functional>
#include <string>
#include <string_view>

#include "lib/base/error.h"
#include "tests/io/temp_folder.h"

namespace moelora {

// A file in a folder of its own, written by the test.
struct WrittenFile {
  TempFolder folder;
  std::string path;
  WrittenFile(const std::string& name, const std::string& bytes)
      : path(folder.path() + "/" + name) {
    std::ofstream(path, std::ios::binary) << bytes;
  }
};

// What it says, without the folder.
inline std::string error_of(const std::function<void()>& step) {
  try {
    step();
  } catch (const Error& error) {
    return error.text();
  }
  return "no error";
}

inline bool has_part(const std::string& text, std::string_view part) {
  return text.find(part) != std::string::npos;
}

}  // namespace moelora
