#pragma once

#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <string_view>

// How Python prints what SGLang puts into its messages, so that a plan quotes them letter by
// letter.
namespace moelora::sglang {

// Names in the order in which a plan prints them. Python prints a set in any order.
using NameSet = std::set<std::string, std::less<>>;

std::string py_repr(std::string_view text);       // 'text'
std::string py_list(const NameSet& names);        // ['a', 'b']: of sorted(names)
std::string py_set(const NameSet& names);         // {'a', 'b'}; set()
std::string py_size(std::span<const int64_t> v);  // torch.Size([4, 64])

// A name from a file as it stands in a message: whole, but fit for a terminal.
std::string in_text(std::string_view name);

}  // namespace moelora::sglang
