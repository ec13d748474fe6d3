#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <span>
#include <string>
#include <vector>

#include "lib/adapter/layout.h"

namespace moelora {

// What was changed in an adapter before it is written (by lib/engine/fit, for one server), as far
// as a conversion must carry it into config, folder and report.

// One kind of change: what, where and why, for people.
struct Change {
  std::string name;  // "one-scale"
  std::string note;
};

// Factors or tensors left out because the user said so. Norms are Frobenius norms of the deltas;
// `norm` is unset where it cannot be known (a saved module without the base's weights).
struct LeftOut {
  std::string kind;                  // as the user names it: "router"
  std::vector<std::string> modules;  // sorted
  std::optional<double> norm;
  double whole = 0;  // of everything the adapter adds, this part included where it is known
};

// How targets are written in adapter_config.json.
enum class TargetStyle : uint8_t {
  peft,      // what PEFT needs to create exactly the written modules
  suffixes,  // a plain list of module name suffixes
};

struct Changes {
  std::string engine;                // what the output is for: "sglang@0.5.18"
  std::vector<std::string> options;  // of that server, "KEY=VALUE" as given
  TargetStyle targets = TargetStyle::peft;
  std::map<std::string, std::string> suffixes;  // names that `suffixes` spells otherwise
  // Last names that what cannot be adapted has too: modules are named by longer paths.
  std::set<std::string, std::less<>> shared_leaves;
  std::set<std::string> left_files;  // of the input folder, not carried along
  std::vector<Change> made;
  std::vector<LeftOut> left_out;
  std::vector<std::string> notes;  // what the server must be started with, for people
};

// The adapter_config.json of a written adapter: what PEFT needs to create exactly the written
// modules with exactly their scales. target_modules, exclude_modules, target_parameters, r,
// lora_alpha, rank_pattern and alpha_pattern are rewritten where they must be; every other key
// stays in place. The marker keys that make the layout unambiguous are added to auto_mapping
// (`moelora`, and `lora_B_layout` for peft-params). `dense` and `experts` are all targets of the
// written tensors.
struct WrittenConfig {
  const AdapterConfig& original;
  const ModelSpec* spec;
  const Layout* layout;  // null: no routed-expert factors
  LayoutWriteOptions options;
  std::optional<GateUpOrder> gate_up_order;  // of fused factors as written
  std::span<const ExpertTarget> dense, experts;
  const Changes* changes = nullptr;  // set: written for one engine
};

Json write_config(const WrittenConfig& in);

// 16 for 16.0, as PEFT writes lora_alpha.
Json whole_or_real(double value);

}  // namespace moelora
