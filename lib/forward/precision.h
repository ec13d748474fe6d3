#pragma once

#include <cstdint>

namespace moelora {

// What a model computes with.
//   f64   the oracle: nothing is rounded on the way, not even where transformers does (norms in
//         fp32)
//   f32   sums in float
//   bf16  sums in float, and rounded to BF16 where a server stores activations: what every Linear,
//         norm, RoPE, attention and expert stage gives, the residual, and the logits. What differs
//         from f32 is how far apart two sound systems may be
enum class Precision : uint8_t { f64, f32, bf16 };

}  // namespace moelora
