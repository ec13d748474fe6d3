#pragma once

#include <cstdlib>
#include <fstream>
#include <sstream>
#include <string>

namespace moelora {

inline std::string read_text(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  std::ostringstream out;
  out << in.rdbuf();
  return out.str();
}

inline void write_text(const std::string& path, const std::string& text) {
  std::ofstream(path, std::ios::binary) << text;
}

// The text a test must reproduce, tests/io/NAME of the source tree. MOELORA_UPDATE=1 in the
// environment writes `actual` there instead, to be read in the diff and committed.
inline std::string golden_text(const std::string& name, const std::string& actual) {
  const std::string path = std::string(MOELORA_SOURCE_DIR) + "/tests/io/" + name;
  const char* const update = std::getenv("MOELORA_UPDATE");
  if (update != nullptr && std::string(update) == "1") write_text(path, actual);
  return read_text(path);
}

}  // namespace moelora
