#pragma once

#include <cstdint>
#include <string_view>

namespace moelora {

// A weight of one expert. `gate_up` is gate and up stored as one matrix of 2I rows, in the order
// (halves or interleaved) that the model family uses. A non-gated expert has up and down only.
enum class Projection : uint8_t { gate, up, gate_up, down };

std::string_view projection_name(Projection projection);  // "gate_proj", ..., "gate_up_proj"

}  // namespace moelora
