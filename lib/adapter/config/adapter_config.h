#pragma once

#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "lib/adapter/scaling.h"
#include "lib/base/progress.h"
#include "lib/base/regex/path_pattern.h"
#include "lib/io/file.h"
#include "lib/io/json.h"

namespace moelora {

// Order of the columns of a stacked lora_B [out, E*r]: PEFT's column k*E + e (rank slowest), or
// e*r + k (expert slowest), which Unsloth wrote until 2026-09-17 and marks "grouped_by_expert".
enum class BOrder : uint8_t { rank_major, expert_major };

// Which side of a stacked pair A is on: the input (natural), or the output (what PEFT <= 0.18
// wrote for [E, out, in] parameters, and 0.19.0 for gpt-oss).
enum class Roles : uint8_t { natural, swapped };

std::string_view b_order_name(BOrder order);  // "rank-major", "expert-major"
std::string_view roles_name(Roles roles);     // "natural", "swapped"
std::optional<BOrder> parse_b_order(std::string_view text);
std::optional<Roles> parse_roles(std::string_view text);

// adapter_config.json: the fields a conversion needs, typed; everything else stays in `json` and
// is written back in place. Patterns keep their order because PEFT takes the first that matches.
struct AdapterConfig {
  // Compiled once in the source file rather than in every file that uses it.
  AdapterConfig();
  AdapterConfig(const AdapterConfig&);
  AdapterConfig(AdapterConfig&&) noexcept;
  AdapterConfig& operator=(const AdapterConfig&);
  AdapterConfig& operator=(AdapterConfig&&) noexcept;
  ~AdapterConfig();

  Json json;
  std::string where;  // path, for messages

  int64_t r = 0;
  double lora_alpha = 0;
  bool use_rslora = false, use_dora = false, lora_bias = false, fan_in_fan_out = false;
  PatternTable<int64_t> rank_pattern;
  PatternTable<double> alpha_pattern;
  std::vector<std::string> target_modules;  // empty when absent, null or a string
  std::string target_regex;                 // target_modules given as a string
  std::vector<std::string> target_parameters;
  std::vector<std::string> modules_to_save;
  std::string base_model, peft_version, init_lora_weights;

  // Markers: Unsloth's `lora_B_layout` and `unsloth_fused_expert_lora`, at the top level or in
  // auto_mapping, and ours, the object `moelora`. What else a config tells of the order is
  // lib/adapter/b_order.h's.
  std::optional<BOrder> b_order;                                   // of all parameters
  std::vector<std::pair<std::string, BOrder>> parameter_b_orders;  // where they are marked apart
  bool mixed_b_orders = false;                                     // the marker of all says "mixed"
  std::optional<Roles> roles;
  std::string layout;         // moelora.layout, "" when absent
  std::string gate_up_order;  // moelora.gate_up_order, "" when absent

  // Scaling of the module or parameter at this path (no "base_model.model." in front), with PEFT's
  // rule: the first pattern key for which re.match(r"(.*\.)?(KEY)$", path) succeeds, else r and
  // lora_alpha. For an expert parameter the path is the parameter's (...mlp.experts.gate_up_proj),
  // although the saved tensor is named after its module.
  Scaling scaling(const std::string& path) const;
};

// Throws Error with file, line and column for a missing or mistyped field. r and lora_alpha must be
// there; peft_type, where present, must be LORA.
AdapterConfig parse_adapter_config(Json json, const std::string& where);

// What the user says of the input. Unset: markers, shapes and defaults decide (design.md, decision
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
  bool follow_base = true;  // base_model_name_or_path may be a folder of this machine
  ReadOptions read = {};
  bool ignore_zip_crc = false;  // read a torch file though the checksum of a record differs
  // Of weights and configs: whether they may be links out of the folder that was named.
  Links links = Links::within;
  JobControl job = {};

  InputOptions input() const { return {ignore_zip_crc, links}; }
};

}  // namespace moelora
