#pragma once

#include <string>
#include <vector>

namespace moelora {

// A file of schemas/ inside the program (embed.cmake).
struct EmbeddedFile {
  std::string name;  // without ".json"
  std::string text;
};

}  // namespace moelora
