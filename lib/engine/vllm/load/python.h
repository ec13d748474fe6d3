#pragma once

#include <exception>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/io/json.h"

// How Python sees and prints values: vLLM's messages are f-strings.
namespace moelora::vllm {

std::string_view type_name(const Json& value);  // "NoneType", "int", "str" ...
bool truthy(const Json& value);                 // bool(value)
std::string str(const Json& value);             // str(value) of a number or null
std::string repr(std::string_view text);        // 'text'

// str() of a list or a set of str: the first kListed entries and how many there are, as a model
// with 128 experts has a set of 400 names. Sets come sorted; Python's own order is arbitrary.
inline constexpr size_t kListed = 8;
std::string list_text(const std::vector<std::string>& items);  // "['a', 'b', ... (96 entries)]"
std::string set_text(std::vector<std::string> items);          // "{'a', 'b'}"

// What the server's own code raises while it loads an adapter. Never leaves this folder: steps end
// in a Raised value (raised_by).
struct Raised : std::exception {
  Raised(std::string_view a_type, std::string a_text = {})
      : type(a_type), text(std::move(a_text)) {}
  const char* what() const noexcept override { return text.c_str(); }
  std::string type, text;
};

inline Raised assertion_error() { return Raised("AssertionError"); }

inline Raised none_has_no(const std::string& attribute) {
  return Raised("AttributeError", "'NoneType' object has no attribute '" + attribute + "'");
}

template <class F>
std::optional<Raised> raised_by(F&& step) {
  try {
    step();
    return std::nullopt;
  } catch (const Raised& raised) {
    return raised;
  }
}

}  // namespace moelora::vllm
