#pragma once

#include <initializer_list>
#include <string>
#include <string_view>
#include <vector>

namespace moelora {

inline constexpr std::string_view kSafetensorsEnding = ".safetensors";
inline constexpr std::string_view kIndexEnding = ".safetensors.index.json";

std::string join_path(const std::string& folder, const std::string& name);

// The names in a folder that are no folders, sorted. Throws Error when it cannot be listed.
std::vector<std::string> files_in(const std::string& folder);

// Those of `names` that end in one of `endings`, in their order.
std::vector<std::string> ending_in(const std::vector<std::string>& names,
                                   std::initializer_list<std::string_view> endings);

// "a, b, c and 4 more": printable, for a message.
std::string list_some(const std::vector<std::string>& names);

}  // namespace moelora
