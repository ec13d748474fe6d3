#include "tools/terminal.h"

#include <sys/ioctl.h>
#include <unistd.h>

#include <cstdlib>
#include <string_view>

namespace moelora {
namespace {

bool is_set(const char* variable) {
  const char* value = std::getenv(variable);
  return value != nullptr && *value != '\0';
}

}  // namespace

bool in_ci() {
  for (const char* variable : {"CI", "GITHUB_ACTIONS", "TF_BUILD", "TEAMCITY_VERSION"})
    if (is_set(variable)) return true;
  return false;
}

bool wants_color(const CommonOptions& options) {
  if (options.no_color || is_set("NO_COLOR") || !options.output.empty()) return false;
  const char* terminal = std::getenv("TERM");
  return isatty(STDOUT_FILENO) == 1 && terminal != nullptr && std::string_view(terminal) != "dumb";
}

bool wants_blocks(const CommonOptions& options) { return wants_color(options) && !in_ci(); }

size_t terminal_width(const CommonOptions& options) {
  winsize size{};
  const bool known = options.output.empty() && isatty(STDOUT_FILENO) == 1 &&
                     ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) == 0;
  return known ? size.ws_col : 0;
}

}  // namespace moelora
