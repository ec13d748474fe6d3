#pragma once

#include <optional>
#include <string>

#include "lib/adapter/adapter_file.h"

namespace moelora {

// An adapter that was never in a file: `tensors` by the names that its trainer would write,
// `config` what its adapter_config.json would hold. Read like a folder (open_adapter): wrappers of
// training are left out of names, dialects are recognized. Throws Error.
AdapterFiles adapter_in_memory(TensorMap tensors, Json config, const std::string& from = "");

// What load_adapter(path, ...) makes of opened files.
LoadedAdapter load_adapter(AdapterFiles files, const LoadOptions& options,
                           std::optional<DType> dtype = std::nullopt);

}  // namespace moelora
