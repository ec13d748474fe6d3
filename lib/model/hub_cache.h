#pragma once

#include <optional>
#include <string>

namespace moelora {

// Whether a text may be a hub repository: "org/name" or "name" of the characters those have.
bool is_hub_name(const std::string& name);

// The folder of a hub repository's snapshot in the local cache (open_base says where that is);
// nullopt when there is none, and `tried` gains what was missing.
std::optional<std::string> find_hub_snapshot(const std::string& name, std::string& tried);

// Why the local cache, which has a folder of this repository, leads to no snapshot of it: refs/main
// is not there, holds no commit, cannot be read or names a snapshot that is not there. nullopt
// where all is well, or the cache has nothing of it.
struct HubCacheFault {
  std::string what, advice;
};
std::optional<HubCacheFault> hub_cache_fault(const std::string& name);

// The snapshot of a repository's folder in a cache, models--org--name: that of refs/main, else the
// only one; "" where `folder` is no such folder.
std::string snapshot_in(const std::string& folder);

}  // namespace moelora
