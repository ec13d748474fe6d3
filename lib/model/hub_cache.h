#pragma once

#include <string>

namespace moelora {

struct HubSnapshot {
  std::string folder;  // "" when there is none
  std::string tried;   // then: where it was looked for and what was missing
};

// The snapshot of a hub model ("org/name") in the local Hugging Face cache: $HF_HUB_CACHE, else
// $HF_HOME/hub, else $XDG_CACHE_HOME or ~/.cache, huggingface/hub; below it
// models--org--name/snapshots/COMMIT, with the commit of refs/main. Nothing is downloaded.
HubSnapshot find_hub_snapshot(const std::string& name);

}  // namespace moelora
