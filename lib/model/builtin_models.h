#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/io/json.h"

namespace moelora {

// A config.json of a well-known model that is inside the program: schemas/builtin_models/*.json,
// each {"names": [hub names of this shape], "config": {...}}.
struct BuiltinModel {
  std::string name;   // the first name
  std::string where;  // the file, for messages
  Json config;
};

// By any of its names, upper and lower case alike (the hub does not tell them apart).
std::optional<BuiltinModel> find_builtin_model(const std::string& name);

}  // namespace moelora
