#pragma once

#include <nanobind/nanobind.h>

#include "lib/base/tensor.h"

namespace moelora::python {

// Tensors over arrays of Python: [(name, array, dtype or "")]; the dtype is a safetensors name
// where the array's own says less (BF16 behind uint16). Nothing is copied: REQUIRES that the arrays
// live as long as the tensors. Raises TypeError for what is no array of the CPU.
TensorMap borrowed_tensors(const nanobind::list& named);

void bind_tensor(nanobind::module_& module);

}  // namespace moelora::python
