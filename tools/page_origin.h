#pragma once

#include <string>
#include <string_view>

#include "lib/base/page/page.h"

namespace moelora {

// The words of this process's command line, for page_origin(). run_tool calls it.
void remember_command(int argc, char** argv, const std::string& tool);

// What a report in this format says of where it comes from, "" for all but HTML: the command as a
// shell takes it, and when that was: now, or $SOURCE_DATE_EPOCH
// (https://reproducible-builds.org/specs/source-date-epoch), with which the same input gives the
// same bytes. Throws Error where that is set and no number of seconds: ask before the work.
PageOrigin page_origin(std::string_view format);

}  // namespace moelora
