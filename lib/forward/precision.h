#pragma once

#include <cstdint>

namespace moelora {

// What a model computes with. F64 is the oracle: nothing is rounded on the way, not even where
// transformers does (norms in fp32).
enum class Precision : uint8_t { f64, f32 };

}  // namespace moelora
