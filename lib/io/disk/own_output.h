#pragma once

#include <optional>
#include <string>
#include <vector>

namespace moelora {

// The files that a folder says lora-convert wrote into it: "files" of its conversion.json, or of
// "moelora" in its config.json. nullopt where neither says so: nothing proves the folder ours.
std::optional<std::vector<std::string>> files_of_output(const std::string& folder);

// The files of a folder that --force may replace: one of those, with no file beyond its list; or an
// empty one. Throws Error, which names `where`, for any other.
std::vector<std::string> replaceable_files(const std::string& folder, const std::string& where);

}  // namespace moelora
