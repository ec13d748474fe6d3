#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/io/json.h"

// How Python sees and prints values: the servers' messages are f-strings.
namespace moelora {

// Names in the order in which a plan prints them. Python prints a set in any order.
using NameSet = std::set<std::string, std::less<>>;

std::string_view py_type(const Json& value);  // type(value).__name__: "NoneType", "int", "str" ...
bool py_bool(const Json& value);              // bool(value)
std::string py_str(const Json& value);        // str(value) of a number or null

// repr() of a str, fit for a terminal: 'text'.
std::string py_repr(std::string_view text);
std::string py_size(std::span<const int64_t> v);  // torch.Size([4, 64])

// str() of a list or a set of str: ['a', 'b'] and {'a', 'b'} or set(). Beyond `most` names only how
// many there are: ['a', 'b', ... (96 entries)].
inline constexpr size_t kAllNames = SIZE_MAX;
std::string py_list(const std::vector<std::string>& names, size_t most = kAllNames);
std::string py_list(const NameSet& names);  // of sorted(names)
std::string py_set(const NameSet& names, size_t most = kAllNames);

// A name from a file as it stands in a message: whole, but fit for a terminal.
std::string in_text(std::string_view name);

}  // namespace moelora
