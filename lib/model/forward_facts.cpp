#include "lib/model/forward_facts.h"

namespace moelora {

std::string ForwardFacts::memory_path(const std::string& path) const {
  return prefix_renamed(path, prefixes);
}

std::string ForwardFacts::hub_path(const std::string& path) const {
  return prefix_renamed(renamed(path, hub_names), hub_prefixes);
}

}  // namespace moelora
