#pragma once

#include <string_view>

#include "lib/adapter/adapter_search.h"
#include "lib/check/many/opened_bases.h"
#include "lib/check/validation.h"

namespace moelora {

// What Progress calls it; it counts adapters, not bytes.
inline constexpr std::string_view kAdapterStage = "checking adapters";

// validate() of adapters that are judged alone, as many at a time as there are threads: of each no
// more is kept than a report prints, so that a thousand take the memory of these few and of their
// findings. What their servers
// say is theirs: no finding is of a deployment. Notes that many have in common are one.
ValidationReport judge_alone(const ValidateRequest& request, const FoundAdapters& found,
                             OpenedBases& bases);

}  // namespace moelora
