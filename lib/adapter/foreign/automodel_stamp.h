#pragma once

#include <string>
#include <vector>

#include "lib/adapter/adapter_folder.h"
#include "lib/adapter/config/adapter_config.h"

namespace moelora {

// NeMo AutoModel says beside PEFT's config, in automodel_peft_config.json, as which release of PEFT
// it packed routed experts: until 0.19.0 lora_A was on the output side of a parameter [E, out, in],
// since 0.19.1 it is on the input side (AutoModel, checkpoint/addons.py, moe/state_dict_mixin.py).
// Sets config.roles, which counts where shapes leave it open, unless the config says them. A word
// that is not known, and a file that cannot be read, are noted and not used.
void read_automodel_stamp(const AdapterFolder& folder, Links links, AdapterConfig& config,
                          std::vector<std::string>& notes);

}  // namespace moelora
