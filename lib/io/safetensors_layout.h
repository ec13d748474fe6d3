#pragma once

#include <cstdint>
#include <string>

#include "lib/io/safetensors.h"

namespace moelora {

// The rules about where tensors lie: names differ; in file order each begins where the one before
// ends, the first at 0; shape and dtype take, without wrapping, as many whole bytes as the offsets
// hold; the last ends where the file does. So no byte belongs to two tensors or to none.
// REQUIRES: header.tensors in file order. Throws Error at WHERE or "WHERE: TENSOR".
void check_safetensors_layout(const SafetensorsHeader& header, uint64_t file_size,
                              const std::string& where);

}  // namespace moelora
