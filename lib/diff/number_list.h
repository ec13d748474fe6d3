#pragma once

#include <optional>
#include <string_view>
#include <vector>

#include "lib/diff/scores.h"

namespace moelora {

// A JSON list of log-probabilities, or of such lists, read as it stands: no value takes more than
// its double. null and Python's words for what is not finite, bare or in quotes, are values too.
// Empty for any other text, JSON or not.
std::vector<Sequence> read_number_list(std::string_view text);

// What "-Infinity", "Infinity" and "NaN" stand for; nullopt for any other text.
std::optional<double> not_finite(std::string_view text);

}  // namespace moelora
