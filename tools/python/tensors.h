#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <vector>

#include "lib/base/tensor.h"

namespace moelora::python {

// Tensors over arrays of Python, which live as long: an object with DLPack may make an array anew
// whenever it is asked for one.
struct BorrowedTensors {
  std::vector<nanobind::ndarray<nanobind::ro>> arrays;
  TensorMap tensors;
};

// Of [(name, array, dtype or "")]; the dtype is a safetensors name where the array's own says less
// (BF16 behind uint16). Nothing is copied. Raises TypeError for what is no array of the CPU.
BorrowedTensors borrowed_tensors(const nanobind::list& named);

void bind_tensor(nanobind::module_& module);

}  // namespace moelora::python
