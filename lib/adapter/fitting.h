#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

namespace moelora {

// What was changed in an adapter so that one engine computes what it means. lib/engine/fit decides;
// a conversion only carries it into the config and the report.

// One kind of change: what, where and why, for people.
struct Repair {
  std::string name;  // "one-scale"
  std::string note;
};

// Factors or tensors left out because the user said --drop. Norms are Frobenius norms of the
// deltas; `norm` is unset where it cannot be known (a saved module without the base's weights).
struct DroppedPart {
  std::string kind;                  // as --drop names it: "router"
  std::vector<std::string> modules;  // sorted
  std::optional<double> norm;
  double whole = 0;  // of everything the adapter adds, this part included where it is known
};

// How targets are written in adapter_config.json.
enum class TargetStyle : uint8_t {
  peft,      // what PEFT needs to create exactly the written modules
  suffixes,  // a plain list of module name suffixes, the one form SGLang reads
};

struct Fitting {
  std::string engine;                // "sglang@0.5.18"
  std::vector<std::string> options;  // of the server, "KEY=VALUE" as given
  TargetStyle targets = TargetStyle::peft;
  std::map<std::string, std::string> suffixes;  // names that `suffixes` spells otherwise
  std::set<std::string> left_files;             // of the input folder, not carried along
  std::vector<Repair> repairs;
  std::vector<std::string> notes;  // what the server must be started with, for people
  std::vector<DroppedPart> dropped;
};

}  // namespace moelora
