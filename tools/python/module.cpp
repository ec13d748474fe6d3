#include "tools/python/module.h"

#include <string>

#include "lib/base/version.h"
#include "tools/python/call.h"
#include "tools/python/running.h"
#include "tools/python/tensors.h"

namespace {

// An Error of whatever is called outside of in_python.
void translate(const std::exception_ptr& failed, void*) {
  try {
    std::rethrow_exception(failed);
  } catch (const moelora::Error& error) {
    moelora::python::set_error(error, moelora::python::Words(nanobind::dict()));
  }
}

}  // namespace

NB_MODULE(_core, module) {
  using namespace moelora;
  nanobind::register_exception_translator(translate);
  python::bind_running();
  module.def("version", [] { return std::string(version()); });
  python::bind_tensor(module);
  python::bind_convert(module);
  python::bind_validate(module);
  python::bind_compare(module);
  python::bind_adapter(module);
  python::bind_score(module);
}
