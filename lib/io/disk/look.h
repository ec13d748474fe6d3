#pragma once

#include <string>

namespace moelora {

// What is at `path`, links followed. Throws MachineError where the machine does not let us look:
// "no" would be another answer.
bool is_folder(const std::string& path);
bool is_regular_file(const std::string& path);
bool is_there(const std::string& path);

}  // namespace moelora
