#pragma once

#include <functional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace moelora {

// (name, bytes); the name may be "FOLDER/FILE".
using TreeFiles = std::vector<std::pair<std::string_view, std::string_view>>;

// Writes a folder of small files and of folders of such, which appears complete or not at all and
// replaces nothing. `ready` is called when all is written: what it throws leaves nothing. Throws
// Error.
void write_tree(const std::string& path, const TreeFiles& files, bool durable,
                const std::function<void()>& ready = {});

}  // namespace moelora
