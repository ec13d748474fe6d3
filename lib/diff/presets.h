#pragma once

#include <span>
#include <string_view>

namespace moelora {

// A threshold that a project uses for one model in its own tests.
struct Preset {
  std::string_view name;    // "sglang-gpt-oss-20b"
  std::string_view metric;  // of Metrics
  double most;
  std::string_view source;
};

std::span<const Preset> all_presets();
const Preset& preset_by_name(std::string_view name);  // throws Error that lists the names

}  // namespace moelora
