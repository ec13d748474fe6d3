#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "lib/base/tensor.h"

namespace moelora {

// Low-rank factors as trainers other than PEFT spell them. Nothing here reads them, and PEFT and
// the servers either refuse them or pass them over; they are the training, so they are refused by
// name, never carried along as if they were saved modules.
struct ForeignSpelling {
  std::string_view whose;   // "MLX", completes "in the spelling of ..."
  std::string_view names;   // what such names look like
  std::string_view advice;  // an instruction
};

// Null for a name that is read, or that is no factor's (a saved module, a bias).
const ForeignSpelling* foreign_spelling(std::string_view name);

// The factors of one spelling among the tensors of a file.
struct ForeignFactors {
  const ForeignSpelling* spelling;
  std::vector<std::string> names;  // sorted
};
std::vector<ForeignFactors> foreign_factors(const TensorMap& tensors);

// "8 of 24 tensors are low-rank factors in the spelling of MLX (...), which is not read".
std::string describe(const ForeignFactors& found, size_t tensors);

}  // namespace moelora
