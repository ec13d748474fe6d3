#pragma once

#include <span>

#include "lib/adapter/layout.h"

namespace moelora {

// Writes r, lora_alpha, rank_pattern and alpha_pattern so that PEFT's first-match rule gives every
// target its rank and alpha: one pair for all where all agree, else the original r and lora_alpha
// with a pattern entry for each name that differs (its leaf where that is unambiguous, else its
// full path).
void set_scales(Json& config, const AdapterConfig& original, std::span<const ExpertTarget> targets);

}  // namespace moelora
