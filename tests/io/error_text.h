#pragma once

#include <string>

#include "lib/base/error.h"

namespace moelora {

// "WHERE: WHAT" of the Error that `f` throws, without the folder `under`; "" when it throws none.
template <class F>
std::string error_text(F&& f, const std::string& under = "") {
  try {
    f();
  } catch (const Error& e) {
    std::string text = e.what();
    if (!under.empty() && text.starts_with(under + "/")) text.erase(0, under.size() + 1);
    return text;
  }
  return "";
}

// The same, and its hint after an arrow.
template <class F>
std::string error_advised(F&& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.what() + std::string(" -> ") + e.hint();
  }
  return "";
}

template <class F>
std::string error_hint(F&& f) {
  try {
    f();
  } catch (const Error& e) {
    return e.hint();
  }
  return "";
}

}  // namespace moelora
