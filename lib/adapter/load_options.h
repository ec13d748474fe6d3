#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/adapter/adapter_config.h"
#include "lib/base/progress.h"

namespace moelora {

// What the user said of the input. Unset: markers, shapes and defaults decide (design.md, decision
// 5).
struct ReadOptions {
  std::optional<BOrder> b_order;
  std::optional<Roles> roles;
};

// How an adapter is read.
struct LoadOptions {
  std::string from;  // layout id; "" to detect
  // A model folder, its config.json or a hub name; "" to look at base_model_name_or_path.
  std::string base;
  std::vector<std::string> model_specs = {};  // files that describe more families
  ReadOptions read = {};
  bool ignore_zip_crc = false;  // read a torch file though the checksum of a record differs
  JobControl job = {};
};

}  // namespace moelora
