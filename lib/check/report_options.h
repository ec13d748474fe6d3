#pragma once

#include <cstddef>
#include <optional>
#include <string>

#include "lib/base/page/page.h"
#include "lib/check/finding.h"

namespace moelora {

// How a report is printed.
struct ReportOptions {
  bool color = false;
  bool blocks = false;   // text: pictures of colored blocks too, where it is verbose
  bool verbose = false;  // every name, fixes of information too, the memory table of each engine
  bool concise = false;  // a table of the adapters, one of the rules; so it is of more than 20
  size_t width = 0;      // columns to wrap prose to; 0: never
  std::optional<Severity> fail_on = Severity::error;  // nullopt: no finding fails
  // Absolute: where adapters' paths are printed relative to, and what a repository holds. Files in
  // it are named relative to it, others absolutely.
  std::string working_folder = {}, root = {};
  std::string project = {};  // the project file that was read; "" for none
  PageOrigin origin = {};    // of an HTML page
};

}  // namespace moelora
