#pragma once

#include <nanobind/nanobind.h>

#include "lib/moelora.h"

namespace moelora::python {

// The fields of moelora.Conversion.
nanobind::dict result_dict(const ConvertResult& made);

}  // namespace moelora::python
