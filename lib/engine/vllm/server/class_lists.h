#pragma once

#include <optional>
#include <string>
#include <string_view>

#include "lib/engine/release.h"
#include "lib/model/json_view.h"
#include "lib/model/model_spec.h"

// Lists of schemas/engines/vllm.json beside the classes that are described.
namespace moelora::vllm {

// The entry of a list: of the base's architecture, or of its family where the config names none.
std::optional<JsonView> entry_of(std::string_view list, const ModelSpec& spec);

// The release that a string names. Throws Error where there is none.
const Release& release_of(const JsonView& json);

// Whether the version is one from "since" on and from before "before".
bool is_in_range(const JsonView& json, const EngineVersion& version);

// Why nothing is said of the base's class, which takes LoRA in this version; "" of any other.
std::string why_not_judged(const ModelSpec& spec, const EngineVersion& version);

}  // namespace moelora::vllm
