#pragma once

#include <string>

#include "lib/compare/bits/stacked_pairs.h"
#include "lib/compare/bits/table.h"
#include "lib/io/json.h"

namespace moelora::packed {

struct TableOptions {
  const ModelSpec* spec = nullptr;
  Reading reading;
};

// Throws Error where names and shapes make no sense, or may mean two things.
Table make_table(const TensorMap& tensors, const Json& config, const std::string& where,
                 const TableOptions& options);

}  // namespace moelora::packed
