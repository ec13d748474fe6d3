#pragma once

#include <string>
#include <vector>

#include "lib/check/ignore.h"

namespace moelora {

inline constexpr const char* kProjectFile = ".moelora.json";

// What a repository says once for all runs of lora-validate (schemas/project.schema.json):
//   {"base": "...", "engines": ["sglang@0.5.18"], "server_options": {"tp-size": 2},
//    "ignore": [{"rule": "SGL021", "reason": "...", "adapter": "adapters/big*"}]}
// Every key may be absent. Options of the command line replace base and engines, and win over
// server options.
struct Project {
  std::string base;                         // a path below the file's folder, or a hub name
  std::vector<std::string> engines;         // as --engine takes them
  std::vector<std::string> server_options;  // "KEY=VALUE", as --server-option takes them
  std::vector<Waiver> waivers;
};

// Strict: an unknown key, a wrong type, an ignore without a reason and a rule that does not exist
// are each an Error at "PATH:LINE:COLUMN".
Project read_project(const std::string& path);

}  // namespace moelora
