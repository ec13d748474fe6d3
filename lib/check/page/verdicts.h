#pragma once

#include <string>

#include "lib/check/report.h"

namespace moelora {

// Markup of a table: adapters down, servers and their versions across; of many adapters those with
// the most severe findings.
std::string verdict_matrix(const Report& report);

}  // namespace moelora
