#pragma once

#include <nanobind/nanobind.h>

// What each file of this folder adds to the module moelora._core. Its functions take the options of
// a call as a dict and raise moelora.Error; the package around them has the signatures, the types
// and the documentation.
namespace moelora::python {

void bind_convert(nanobind::module_& module);
void bind_validate(nanobind::module_& module);
void bind_compare(nanobind::module_& module);
void bind_adapter(nanobind::module_& module);
void bind_score(nanobind::module_& module);

}  // namespace moelora::python
