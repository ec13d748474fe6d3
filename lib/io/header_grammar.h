#pragma once

#include <string>

#include "lib/io/safetensors_header.h"

namespace moelora {

// The grammar of a safetensors header, nothing about sizes: entries in the order of the text, and
// metadata. Throws Error at `where` or "WHERE: TENSOR". Names stay parts of the text, which
// SafetensorsHeader::names holds.
SafetensorsHeader read_header_grammar(std::string text, const std::string& where);

}  // namespace moelora
