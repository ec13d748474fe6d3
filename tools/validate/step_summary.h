#pragma once

#include <string>

namespace moelora {

// Appends Markdown to the file that GitHub Actions shows as the step's summary
// ($GITHUB_STEP_SUMMARY; nothing where it is not set). GitHub drops a summary above 1 MiB whole:
// what is more is cut at a line, and the cut is reported.
void append_step_summary(const std::string& markdown);

}  // namespace moelora
