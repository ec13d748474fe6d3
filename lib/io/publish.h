#pragma once

#include <string>

#include "lib/io/output.h"

namespace moelora {

// fsync of a folder. Errors name `where`.
void sync_folder(const std::string& path, const std::string& where);

// Gives the finished folder `temporary` its final name `target` in one step that nobody can see
// half done, and syncs the parent when durable. With force an existing folder at `target` is
// exchanged and then removed. On an Error `target` is as it was. Errors name `where`.
void publish(const std::string& temporary, const std::string& target, const std::string& where,
             const OutputOptions& options);

}  // namespace moelora
