#include "tools/python/module.h"

#include <nanobind/stl/string.h>

#include <string>

#include "lib/base/version.h"
#include "tools/python/tensors.h"

NB_MODULE(_core, module) {
  using namespace moelora;
  module.def("version", [] { return std::string(version()); });
  python::bind_tensor(module);
  python::bind_convert(module);
  python::bind_validate(module);
  python::bind_compare(module);
  python::bind_adapter(module);
}
