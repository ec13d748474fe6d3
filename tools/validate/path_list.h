#pragma once

#include <string>
#include <vector>

namespace moelora {

// The paths that stdin lists, each ended by `separator`: a newline, or a zero byte for names that
// hold newlines (git diff -z, find -print0). Empty ones are left out. Throws Error where stdin
// cannot be read, and for a zero byte among lines.
std::vector<std::string> read_path_list(char separator);

}  // namespace moelora
