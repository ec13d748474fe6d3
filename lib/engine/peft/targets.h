#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "lib/base/dotted_path.h"
#include "lib/base/regex/path_pattern.h"
#include "lib/engine/peft/model.h"
#include "lib/engine/plan.h"
#include "lib/io/json.h"

namespace moelora::peft {

using Names = PathEnds;

// The fields of adapter_config.json that decide what is wrapped, as LoraConfig holds them.
struct Config {
  int64_t r = 8;
  double lora_alpha = 8;
  bool use_rslora = false, use_dora = false, lora_bias = false, fan_in_fan_out = false;
  double lora_dropout = 0;
  PatternTable<int64_t> rank_pattern;
  PatternTable<double> alpha_pattern;
  std::optional<std::string> target_regex;  // target_modules given as a string
  Names target_modules;
  Names target_parameters;
  Names exclude_modules, modules_to_save;
  std::optional<std::string> exclude_regex;
  std::optional<std::set<int64_t>> layers;  // layers_to_transform
  std::string layers_pattern;
  std::string task_type;
  bool takes_targets = false;  // targets were turned into those of the routed experts
  bool doubles_rank = false;   // and gate_up_proj is given twice the rank

  int64_t rank(std::string_view path) const;
  double alpha(std::string_view path) const;
  double scaling(std::string_view path) const;  // lora_alpha / r, or over its root
};
Config read_config(const Json& json);

// Turns the targets into those of the model as this PEFT does before it looks for modules:
// "all-linear", and the names of numbered experts beside transformers 5. Returns what it raises.
std::optional<Refusal> resolve_targets(Config& config, const Host& host, const Modules& modules);

std::string_view last_name(std::string_view path);

}  // namespace moelora::peft
