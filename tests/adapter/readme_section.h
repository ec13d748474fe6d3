#pragma once

#include <string>

namespace moelora {

std::string readme_text();  // README.md

// Compares what stands between <!-- NAME --> and <!-- end --> in REFERENCE.md with `expected`; with
// MOELORA_UPDATE=1 writes it there.
void check_reference_section(const std::string& name, const std::string& expected);
// The same in tests/bench/RESULTS.md.
void check_results_section(const std::string& name, const std::string& expected);

}  // namespace moelora
