#pragma once

#include <string>

#include "lib/adapter/adapter_file.h"

namespace moelora {

enum class InspectFormat : uint8_t { text, json };

// What is this? An adapter: layout, modules, ranks, scales, sizes and what is ambiguous. Any other
// sound safetensors file or model folder: its tensors. Throws Error only for what is malformed or
// absent; an adapter that cannot be interpreted (a mixed layout, undecidable roles) is described
// with the reason.
std::string inspect(const std::string& path, const LoadOptions& options, InspectFormat format);

}  // namespace moelora
