#pragma once

#include <vector>

#include "lib/compare/bits/fault.h"
#include "lib/compare/bits/table.h"

namespace moelora::packed {

// What is no low-rank factor (embedding factors, saved modules, biases, magnitudes) must be there
// under its name, with its shape and its values, cast where the packed type is another. With the
// base model's `spec` (null: not known, or nothing may be left out) one thing need not be there:
// the frozen weight that PEFT saves beside the factors of an embedding, MODULE.base_layer.weight,
// where its dims are the base's own.
std::vector<Fault> compare_extras(const Table& packed, const Table& source, const ModelSpec* spec);

}  // namespace moelora::packed
