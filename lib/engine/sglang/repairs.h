#pragma once

#include "lib/engine/fit/step.h"

namespace moelora::sglang {

// Qwen3.5's linear attention joins q, k and v in one Linear beside z; SGLang's layer loads the four
// slices apart, and only under the name of the whole in target_modules (facts: sglang.md 1.5, 1.6).
extern const fit::FitStep split_gdn;

// SGLang joins q, k and v, gate and up, and MLA's two down-projections into one buffer each, and
// fails where a part that it starts from is missing. A pair of zeros stands in (facts: sglang.md
// 1.5, 1.6).
extern const fit::FitStep whole_groups;

// SGLang multiplies an expert's lora_B by the scale in the adapter's own type, and only then casts
// it: in F16 what passes 65504 becomes an infinity (facts: goldens/oracles/sglang.md 3.4,
// measured). F32 holds every F16 value and every such product.
extern const fit::FitStep wide_range;

// A tokenizer's added_tokens.json beside an adapter: SGLang takes ids beyond the base's vocabulary
// for tokens that the adapter adds, and refuses it. An adapter that really adds some has saved its
// embeddings, which no server holds either.
extern const fit::FitStep added_tokens;

}  // namespace moelora::sglang
