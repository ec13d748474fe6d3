#pragma once

#include <string>

namespace moelora {

std::string readme_text();

// Compares what stands between <!-- NAME --> and <!-- end --> in README.md with `expected`; with
// MOELORA_UPDATE=1 writes it there.
void check_readme_section(const std::string& name, const std::string& expected);

}  // namespace moelora
