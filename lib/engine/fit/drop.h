#pragma once

#include <optional>
#include <string_view>
#include <utility>
#include <vector>

#include "lib/engine/fit/step.h"

namespace moelora::fit {

// What the engine has no place for: refused, or left out at the user's word and measured.
extern const FitStep drop_unheld;

// Keys of adapter_config.json that would make a server refuse what the tensors alone allow.
extern const FitStep plain_config;

// The --drop that takes the factors of a module out; nullopt for none.
std::optional<DropKind> drop_of(const std::string& module, const ModelSpec& spec);

// Sets keys of adapter_config.json and notes it as `step`; nothing for no key.
void set_config(FitContext& context, std::string_view step,
                std::vector<std::pair<std::string_view, Json>> changes);

}  // namespace moelora::fit
