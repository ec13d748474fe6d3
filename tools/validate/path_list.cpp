#include "tools/validate/path_list.h"

#include <fmt/core.h>
#include <unistd.h>

#include <array>
#include <cerrno>

#include "lib/base/error.h"
#include "lib/io/file.h"

namespace moelora {
namespace {

constexpr size_t kMost = 64 << 20;

std::string read_stdin() {
  std::string out;
  std::array<char, 1 << 16> block{};
  for (;;) {
    const ssize_t got = ::read(STDIN_FILENO, block.data(), block.size());
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) throw Error("stdin", "cannot be read: " + system_text(errno));
    if (got == 0) return out;
    out.append(block.data(), static_cast<size_t>(got));
    if (out.size() > kMost)
      throw Error("stdin", fmt::format("lists more than {} bytes of paths", kMost),
                  "check them in several runs");
  }
}

}  // namespace

std::vector<std::string> read_path_list(char separator) {
  const std::string text = read_stdin();
  if (separator != '\0' && text.find('\0') != std::string::npos)
    throw Error("stdin", "holds a zero byte, and is read as one path a line", "pass -0");
  std::vector<std::string> out;
  for (size_t begin = 0; begin < text.size();) {
    const size_t end = std::min(text.find(separator, begin), text.size());
    std::string path = text.substr(begin, end - begin);
    if (separator == '\n' && path.ends_with('\r')) path.pop_back();  // a list that Windows wrote
    if (!path.empty()) out.push_back(std::move(path));
    begin = end + 1;
  }
  return out;
}

}  // namespace moelora
