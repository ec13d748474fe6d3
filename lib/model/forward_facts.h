#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "lib/io/json.h"
#include "lib/model/rename.h"

namespace moelora {

// How the models of a family compute, as its file says it, and what that refers to, evaluated for
// one config: what lib/forward/family_section.h reads.
struct ForwardFacts {
  Json section;             // the family's "forward"
  std::string config_path;  // of the keys in the config: "text_config"; "" for the config itself

  std::map<std::string, int64_t, std::less<>> values;             // the family's "values"
  std::map<std::string, std::vector<bool>, std::less<>> choices;  // and "layers"
  std::string layer;                                              // "model.layers.{layer}"
  std::string embedding, lm_head;  // modules; lm_head is "" where the class has none

  // How paths of the family's file are spelled: in memory and in the hub's files.
  Renames prefixes, hub_names, hub_prefixes;

  std::string memory_path(const std::string& path) const;
  std::string hub_path(const std::string& path) const;
};

}  // namespace moelora
