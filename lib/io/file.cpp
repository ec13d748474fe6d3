#include "lib/io/file.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <compare>
#include <filesystem>
#include <mutex>
#include <optional>
#include <set>
#include <system_error>

#include "lib/base/error.h"
#include "lib/base/utf8.h"
#include "lib/io/disk/beneath.h"
#include "lib/io/input_watch.h"
#include "lib/io/read_count.h"

namespace moelora {
namespace fs = std::filesystem;
namespace {

std::atomic<uint64_t> read_so_far = 0;

// Linux moves at most 2 GiB - 4 KiB a call; a smaller window bounds what a signal can undo.
constexpr uint64_t kWindow = uint64_t{1} << 28;

std::string_view kind_of(mode_t mode) {
  if (S_ISDIR(mode)) return "a folder";
  if (S_ISFIFO(mode)) return "a FIFO";
  if (S_ISSOCK(mode)) return "a socket";
  return "a device";
}

// Throws MachineError for what is no fault of the file, of which the watch, if any, learns too;
// else CannotOpen, or Error where nothing is there.
[[noreturn]] void fail(const std::string& path, const std::string& what, int code) {
  const MachineError error(in_file(path), what + ": " + system_text(code));
  if (code == ENOENT || code == ENOTDIR) throw Error(error);
  if (!is_machines(code)) throw CannotOpen(in_file(path), what + ": " + system_text(code));
  if (const auto watched = InputWatch::opened(FileStamp(path))) watched->fail(error);
  throw MachineError(error);
}

// "is a link to ../x", of the name itself or of a folder before it.
std::string what_link(const std::string& path) {
  std::error_code none;
  const fs::path target = fs::read_symlink(path, none);
  return target.empty() ? "is reached by a link"
                        : fmt::format("is a link to {}", printable(target.string()));
}

std::string unopened(const std::string& path, int code) {
  std::error_code none;
  if (code == EXDEV) return what_link(path) + ", which leaves its folder";
  if (code == ENOENT && fs::is_symlink(path, none)) return what_link(path) + ", which is not there";
  return "cannot be opened: " + system_text(code);
}

[[noreturn]] void refuse_to_open(const std::string& path, int code) {
  std::error_code none;
  if (code == EXDEV)
    throw Error(
        in_file(path), unopened(path, code),
        {"pass ", Option::follow_links, " where you trust it, or copy the file itself there"});
  if (code == ENOENT && fs::is_symlink(path, none))
    throw Error(in_file(path), unopened(path, code),
                "Download or copy the file itself; a hub cache keeps the contents in blobs.");
  fail(path, "cannot open", code);
}

// -1 with errno; EXDEV only where there is something that the link leads to.
int open_to_read(const InputPath& path) {
  // O_NONBLOCK: the open of a FIFO without a writer would wait for ever.
  const int fd = path.folder.empty() ? ::open(path.path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK)
                                     : open_beneath(path.folder, path.name);
  if (fd < 0 && errno == EXDEV) errno = is_absent(path.path) ? ENOENT : EXDEV;
  return fd;
}

// ---- the files that this process has opened ----

// Device, inode, and when it was made: the number of an inode is given again.
struct Identity {
  uint64_t device, inode;
  int64_t birth_ns;

  auto operator<=>(const Identity&) const = default;
};

std::optional<Identity> identity(int at, const char* path, int flags) {
  struct statx s {};
  if (::statx(at, path, flags, STATX_INO | STATX_BTIME, &s) != 0) return std::nullopt;
  const bool born = (s.stx_mask & STATX_BTIME) != 0;
  return Identity{uint64_t{s.stx_dev_major} << 32 | s.stx_dev_minor, s.stx_ino,
                  born ? s.stx_btime.tv_sec * 1'000'000'000 + s.stx_btime.tv_nsec : 0};
}

struct Opened {
  std::mutex mutex;
  std::set<Identity> files;
};

Opened& opened() {
  static auto* all = new Opened;
  return *all;
}

}  // namespace

InputPath::InputPath(const std::string& in_folder, const std::string& its_name, Links links)
    : path(join_path(in_folder, its_name)),
      folder(links == Links::within ? in_folder : ""),
      name(its_name) {}

bool is_machines(int code) {
  for (const int each : {EACCES, EPERM, EMFILE, ENFILE, ENOMEM, EIO, EINTR})
    if (code == each) return true;
  return false;
}

FilePtr File::open(const InputPath& input) {
  const std::shared_ptr<File> file(new File);
  const std::string& path = input.path;
  file->fd_ = open_to_read(input);
  if (file->fd_ < 0) refuse_to_open(path, errno);
  struct stat s {};
  if (::fstat(file->fd_, &s) != 0) fail(path, "cannot stat", errno);
  if (!S_ISREG(s.st_mode))
    throw Error(in_file(path), fmt::format("is {}, expected a regular file", kind_of(s.st_mode)));
  file->stamp_ = FileStamp(path, s);
  file->watched_ = InputWatch::opened(file->stamp_);
  if (const auto known = identity(file->fd_, "", AT_EMPTY_PATH)) {
    const std::lock_guard lock(opened().mutex);
    opened().files.insert(*known);
  }
  return file;
}

uint64_t bytes_read() { return read_so_far.load(std::memory_order_relaxed); }

File::~File() {
  if (fd_ >= 0) ::close(fd_);
}

void File::fail_to_read(std::string what, int code, const char* hint) const {
  const MachineError error(in_file(path()), std::move(what), hint);
  if (watched_) watched_->fail(error);
  if (is_machines(code)) throw MachineError(error);
  throw Error(error);
}

void File::read(uint64_t offset, uint64_t count, std::byte* out) const {
  if (offset > size() || count > size() - offset)
    throw Error(in_file(path()),
                fmt::format("cannot read {} bytes at offset {}: the file has {} bytes", count,
                            offset, size()));
  while (count > 0) {
    const ssize_t got = ::pread(fd_, out, std::min(count, kWindow), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0)
      fail_to_read(
          fmt::format("cannot read {} bytes at offset {}: {}", count, offset, system_text(errno)),
          errno);
    if (got == 0)
      fail_to_read(
          fmt::format("ends at offset {}, had {} bytes when it was opened", offset, size()), 0,
          "Something shortened the file while it was read; run again when it is still.");
    read_so_far.fetch_add(static_cast<uint64_t>(got), std::memory_order_relaxed);
    offset += static_cast<uint64_t>(got);
    count -= static_cast<uint64_t>(got);
    out += got;
  }
}

bool File::is_same_file(const std::string& path) const {
  struct stat s {};
  return ::stat(path.c_str(), &s) == 0 && s.st_dev == stamp_.device && s.st_ino == stamp_.inode;
}

bool File::was_opened(const std::string& path) {
  const auto known = identity(AT_FDCWD, path.c_str(), 0);
  if (!known) return false;
  const std::lock_guard lock(opened().mutex);
  return opened().files.count(*known) != 0;
}

FilePtr open_side_file(const std::string& folder, const std::string& name,
                       std::vector<std::string>& notes) {
  const InputPath input(folder, name, Links::within);
  const int fd = open_to_read(input);
  const int code = fd < 0 ? errno : 0;
  struct stat s {};
  const bool looked = fd >= 0 && ::fstat(fd, &s) == 0;
  if (fd >= 0) ::close(fd);
  struct stat link {};
  const bool is_link = ::lstat(input.path.c_str(), &link) == 0 && S_ISLNK(link.st_mode);
  const bool to_nowhere = code == EXDEV || code == ENOENT || code == ELOOP || code == ENOTDIR;
  if (to_nowhere || (code == EACCES && is_link)) {
    notes.push_back(fmt::format("{} is not copied: it {}", input.path, unopened(input.path, code)));
    return nullptr;
  }
  if (!looked || S_ISREG(s.st_mode)) return File::open(input);
  if (!S_ISDIR(s.st_mode))
    notes.push_back(fmt::format("{} is not copied: it is {}", input.path, kind_of(s.st_mode)));
  return nullptr;
}

bool is_absent(const std::string& path) {
  std::error_code fault;
  return !fs::exists(path, fault) && !fault;
}

std::string read_text(const InputPath& path, uint64_t most) {
  const FilePtr file = File::open(path);
  if (file->size() > most)
    throw Error(in_file(path.path),
                fmt::format("has {} bytes, more than the {} that are read", file->size(), most),
                "Check that it is the file that is meant; leave out what no tool reads.");
  std::string out(file->size(), '\0');
  file->read(0, out.size(), reinterpret_cast<std::byte*>(out.data()));
  return out;
}

std::string system_text(int code) { return std::generic_category().message(code); }

std::string join_path(const std::string& folder, const std::string& name) {
  return (fs::path(folder) / name).string();
}

std::vector<std::string> names_in(const std::string& folder) {
  std::error_code fault;
  std::vector<std::string> out;
  for (auto it = fs::directory_iterator(folder, fault); !fault && it != fs::directory_iterator();
       it.increment(fault))
    out.push_back(it->path().filename().string());
  if (fault) fail(folder, "cannot list the folder", fault.value());
  std::sort(out.begin(), out.end());
  return out;
}

std::vector<std::string> files_in(const std::string& folder) {
  std::vector<std::string> out = names_in(folder);
  std::erase_if(out, [&](const std::string& name) {
    std::error_code fault;
    const std::string path = join_path(folder, name);
    const bool is_folder = fs::is_directory(path, fault);
    std::error_code none;  // what a link leads to is for the one who opens it
    if (fault && is_machines(fault.value()) && !fs::is_symlink(path, none))
      fail(path, "cannot be looked at", fault.value());
    return is_folder;
  });
  return out;
}

std::vector<std::string> ending_in(const std::vector<std::string>& names,
                                   std::initializer_list<std::string_view> endings) {
  std::vector<std::string> out;
  std::copy_if(names.begin(), names.end(), std::back_inserter(out), [&](const std::string& name) {
    return std::any_of(endings.begin(), endings.end(),
                       [&](std::string_view ending) { return name.ends_with(ending); });
  });
  return out;
}

}  // namespace moelora
