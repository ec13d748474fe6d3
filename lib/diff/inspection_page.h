#pragma once

#include <string>
#include <vector>

#include "lib/adapter/inspect.h"
#include "lib/base/page/page.h"
#include "lib/compare/delta_sizes.h"

namespace moelora {

// What the values of an inspected adapter are: as much as a picture shows.
struct InspectedValues {
  std::vector<DeltaSize> sizes;  // empty where there is no adapter to measure
  std::string problem;           // why it could not be measured; "" where it could
};

// Reads all factors of the adapter, which inspect() does not. What inspect() tells as a problem is
// one here. Throws Error as inspect() does, and where bytes cannot be read.
InspectedValues inspect_values(const std::string& path, const LoadOptions& options,
                               int threads = 0);

// A page of lib/base/page: layout, norms, dead experts, use of the rank; of what is no adapter its
// tensors.
std::string inspection_html(const Inspection& inspection, const InspectedValues& values,
                            const PageOrigin& origin = {});

// The heat maps of that page as blocks in 256 colors, for a terminal of so many columns (0:
// unknown); "" without values.
std::string inspection_blocks(const InspectedValues& values, size_t width);

}  // namespace moelora
