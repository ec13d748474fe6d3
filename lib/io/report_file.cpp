#include "lib/io/report_file.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <poll.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>
#include <optional>
#include <system_error>

#include "lib/base/error.h"
#include "lib/io/disk/staging.h"
#include "lib/io/file.h"

namespace moelora {
namespace {

namespace fs = std::filesystem;

[[noreturn]] void refuse_to_write(const std::string& path, int code) {
  throw Error(in_file(path), "cannot be written: " + system_text(code), "choose another --output");
}

// Where a file of this name is or would be made, links followed as open() follows them; nullopt for
// what is none, or is an open descriptor of a process.
std::optional<fs::path> file_behind(const std::string& path) {
  constexpr int kMostLinks = 40;
  struct stat s {};
  if (stat(path.c_str(), &s) == 0 && !S_ISREG(s.st_mode)) {
    if (S_ISDIR(s.st_mode)) refuse_to_write(path, EISDIR);
    return std::nullopt;
  }
  std::error_code fault, no_link;
  fs::path at = fs::absolute(path, fault);
  for (int links = 0; !fault && links < kMostLinks; ++links) {
    const fs::path folder = fs::canonical(at.parent_path(), fault);
    if (fault) break;
    if (folder.string().starts_with("/proc/")) return std::nullopt;
    if (!at.has_filename()) refuse_to_write(path, EISDIR);
    at = folder / at.filename();
    const fs::path next = fs::read_symlink(at, no_link);
    if (no_link) return at;
    at = folder / next;
  }
  refuse_to_write(path, fault ? fault.value() : ELOOP);
}

// 0, or the errno of what failed. Waits where a pipe does not block.
int write_all(int fd, std::string_view text) {
  while (!text.empty()) {
    const ssize_t n = ::write(fd, text.data(), text.size());
    if (n < 0 && errno == EINTR) continue;
    if (n < 0 && errno == EAGAIN) {
      pollfd ready{fd, POLLOUT, 0};
      if (poll(&ready, 1, -1) < 0 && errno != EINTR) return errno;
      continue;
    }
    if (n <= 0) return n < 0 ? errno : EIO;
    text.remove_prefix(static_cast<size_t>(n));
  }
  return 0;
}

[[noreturn]] void refuse_incomplete(const std::string& where, int code) {
  throw Error(where, "could not be written completely: " + system_text(code));
}

}  // namespace

ReportFile::ReportFile(std::string path) : path_(std::move(path)) {
  const auto target = file_behind(path_);
  if (!target) {
    // A pipe with a name and no reader would hold us up without a word.
    fd_ = open(path_.c_str(), O_WRONLY | O_APPEND | O_CLOEXEC | O_NOCTTY | O_NONBLOCK);
    struct stat s {};
    if (fd_ < 0 && errno == ENXIO && stat(path_.c_str(), &s) == 0 && S_ISFIFO(s.st_mode))
      throw Error(in_file(path_), "is a pipe that nobody reads", "start its reader first");
    if (fd_ < 0) refuse_to_write(path_, errno);
    return;
  }
  target_ = target->string();
  struct stat s {};
  const bool replaces = stat(target_.c_str(), &s) == 0;
  // One that may not be written is not replaced either, though its folder would allow that.
  if (replaces && access(target_.c_str(), W_OK) != 0) refuse_to_write(path_, errno);
  const StagedFile staged = stage_file(target_);
  staged_ = staged.path;
  fd_ = staged.fd;
  if (replaces) fchmod(fd_, s.st_mode & 07777);
}

ReportFile::~ReportFile() {
  if (fd_ >= 0) close(fd_);
  if (!staged_.empty()) remove_staged(staged_);
}

void ReportFile::refuse(const std::string& file) const {
  struct stat ours {
  }, other{};
  if (target_.empty() || stat(target_.c_str(), &ours) != 0 || stat(file.c_str(), &other) != 0)
    return;
  if (ours.st_dev == other.st_dev && ours.st_ino == other.st_ino)
    throw Error(in_file(path_), "is the input " + file, "choose another --output");
}

void ReportFile::write(std::string_view text) {
  if (!target_.empty() && File::was_opened(target_))
    throw Error(in_file(path_), "is an input: it was read", "choose another --output");
  if (const int error = write_all(fd_, text)) refuse_incomplete(path_, error);
  const bool synced = staged_.empty() || fsync(fd_) == 0;
  const int failed = synced ? 0 : errno;
  const bool closed = close(fd_) == 0;
  fd_ = -1;
  if (!synced || !closed) refuse_incomplete(path_, synced ? errno : failed);
  if (staged_.empty()) return;
  publish_file(staged_, target_, path_);
  staged_.clear();
}

void write_stdout(std::string_view text) {
  if (const int error = write_all(STDOUT_FILENO, text)) refuse_incomplete("stdout", error);
}

void hold_standard_streams() {
  // A folder: nothing can be read from it or written into it.
  for (const int fd : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
    if (fcntl(fd, F_GETFD) < 0 && errno == EBADF) (void)!open("/", O_RDONLY | O_DIRECTORY);
}

}  // namespace moelora
