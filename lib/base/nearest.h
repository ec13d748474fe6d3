#pragma once

#include <optional>
#include <span>
#include <string_view>

#include "lib/base/error.h"

namespace moelora {

// The one of `known` that `text` most likely meant: the smallest edit distance, at most a third of
// its length; the first of equals. nullopt when none is near.
std::optional<std::string_view> nearest(std::string_view text,
                                        std::span<const std::string_view> known);

// The Error for a `word` that is none of `known`, of one kind: "unknown layout 'stackd' (did you
// mean 'stacked'?)". Its hint lists them ("layouts: ...") where they are few, else it is
// `otherwise`.
Error unknown_word(Location location, std::string_view kind, std::string_view word,
                   std::span<const std::string_view> known, Hint otherwise = {});

}  // namespace moelora
