#pragma once

#include <algorithm>
#include <array>

#include "lib/adapter/tensor_name.h"

namespace moelora {

// What the Linears of one expert are called: as anywhere, and as in Grok-1's conversions for
// transformers (schemas/models/grok1.json), which no stacked tensor is.
inline constexpr auto kNumberedWords = [] {
  constexpr NamePattern::Word kGrok[] = {
      {Projection::gate, "linear"}, {Projection::up, "linear_v"}, {Projection::down, "linear_1"}};
  std::array<NamePattern::Word, std::size(kApartWords) + std::size(kGrok)> out = {};
  std::copy(std::begin(kGrok), std::end(kGrok),
            std::copy(std::begin(kApartWords), std::end(kApartWords), out.begin()));
  return out;
}();

}  // namespace moelora
