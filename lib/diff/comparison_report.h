#pragma once

#include <array>
#include <string>
#include <string_view>

#include "lib/diff/comparison.h"

namespace moelora {

inline constexpr std::array<std::string_view, 3> kComparisonFormats = {"text", "json", "html"};

// A comparison in one of the formats; Error for another. JSON is schemas/logprobs.schema.json,
// `with_scores` one that reads as a file of both sides again.
std::string comparison_report(const Comparison& comparison, std::string_view format,
                              bool with_scores = false);

}  // namespace moelora
