#pragma once

#include <nanobind/nanobind.h>

#include <string>

// In place of <nanobind/stl/string.h>, which lets a byte that is no UTF-8 in what the library says
// become a UnicodeDecodeError, after the work is done: a file of any name may be in a message.
namespace nanobind::detail {

template <>
struct type_caster<std::string> {
  NB_TYPE_CASTER(std::string, const_name("str"))

  bool from_python(handle source, uint8_t, cleanup_list*) noexcept {
    Py_ssize_t size = 0;
    const char* text = PyUnicode_AsUTF8AndSize(source.ptr(), &size);
    if (text == nullptr) {
      PyErr_Clear();
      return false;
    }
    value.assign(text, static_cast<size_t>(size));
    return true;
  }

  // Such a byte is spelled, "\xff".
  static handle from_cpp(const std::string& text, rv_policy, cleanup_list*) noexcept {
    return PyUnicode_DecodeUTF8(text.data(), static_cast<Py_ssize_t>(text.size()),
                                "backslashreplace");
  }
};

}  // namespace nanobind::detail

namespace moelora::python {

// A path as os.fsdecode makes it: it can be opened, whatever bytes it has.
inline nanobind::str path_text(const std::string& path) {
  PyObject* const made =
      PyUnicode_DecodeUTF8(path.data(), static_cast<Py_ssize_t>(path.size()), "surrogateescape");
  if (made == nullptr) throw nanobind::python_error();
  return nanobind::steal<nanobind::str>(made);
}

}  // namespace moelora::python
