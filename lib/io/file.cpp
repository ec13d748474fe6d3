#include "lib/io/file.h"

#include <fcntl.h>
#include <fmt/core.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <system_error>

#include "lib/base/error.h"
#include "lib/base/utf8.h"

namespace moelora {
namespace fs = std::filesystem;
namespace {

// Linux moves at most 2 GiB - 4 KiB a call; a smaller window bounds what a signal can undo.
constexpr uint64_t kWindow = uint64_t{1} << 28;

int64_t mtime_ns(const struct stat& s) {
  return static_cast<int64_t>(s.st_mtim.tv_sec) * 1'000'000'000 + s.st_mtim.tv_nsec;
}

std::string_view kind_of(mode_t mode) {
  if (S_ISDIR(mode)) return "a folder";
  if (S_ISFIFO(mode)) return "a FIFO";
  if (S_ISSOCK(mode)) return "a socket";
  return "a device";
}

[[noreturn]] void refuse_to_open(const std::string& path, int code) {
  std::error_code none;
  const fs::path target = fs::read_symlink(path, none);
  if (code == ENOENT && !target.empty())
    throw Error(in_file(path),
                fmt::format("is a link to {}, which is not there", printable(target.string())),
                "Download or copy the file itself; a hub cache keeps the contents in blobs.");
  throw Error(in_file(path), "cannot open: " + system_text(code));
}

}  // namespace

FilePtr File::open(const std::string& path) {
  const std::shared_ptr<File> file(new File);
  file->path_ = path;
  // O_NONBLOCK: the open of a FIFO without a writer would wait for ever.
  file->fd_ = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (file->fd_ < 0) refuse_to_open(path, errno);
  struct stat s {};
  if (::fstat(file->fd_, &s) != 0) throw Error(in_file(path), "cannot stat: " + system_text(errno));
  if (!S_ISREG(s.st_mode))
    throw Error(in_file(path), fmt::format("is {}, expected a regular file", kind_of(s.st_mode)));
  file->size_ = static_cast<uint64_t>(s.st_size);
  file->device_ = s.st_dev;
  file->inode_ = s.st_ino;
  file->mtime_ns_ = mtime_ns(s);
  return file;
}

File::~File() {
  if (fd_ >= 0) ::close(fd_);
}

void File::read(uint64_t offset, uint64_t count, std::byte* out) const {
  if (offset > size_ || count > size_ - offset)
    throw Error(in_file(path_),
                fmt::format("cannot read {} bytes at offset {}: the file has {} bytes", count,
                            offset, size_));
  while (count > 0) {
    const ssize_t got = ::pread(fd_, out, std::min(count, kWindow), static_cast<off_t>(offset));
    if (got < 0 && errno == EINTR) continue;
    if (got < 0)
      throw Error(in_file(path_), fmt::format("cannot read {} bytes at offset {}: {}", count,
                                              offset, system_text(errno)));
    if (got == 0)
      throw Error(in_file(path_),
                  fmt::format("ends at offset {}, had {} bytes when it was opened", offset, size_),
                  "Something shortened the file while it was read; run again when it is still.");
    offset += static_cast<uint64_t>(got);
    count -= static_cast<uint64_t>(got);
    out += got;
  }
}

void File::check_unchanged() const {
  struct stat s {};
  if (::stat(path_.c_str(), &s) != 0)
    throw Error(in_file(path_), "was removed while it was read: " + system_text(errno));
  const bool same = s.st_dev == device_ && s.st_ino == inode_ &&
                    static_cast<uint64_t>(s.st_size) == size_ && mtime_ns(s) == mtime_ns_;
  if (!same)
    throw Error(in_file(path_), "was changed or replaced while it was read",
                "Run again when nothing writes to it.");
}

bool File::is_same_file(const std::string& path) const {
  struct stat s {};
  return ::stat(path.c_str(), &s) == 0 && s.st_dev == device_ && s.st_ino == inode_;
}

std::string read_text(const std::string& path, uint64_t most) {
  const FilePtr file = File::open(path);
  if (file->size() > most)
    throw Error(in_file(path),
                fmt::format("has {} bytes, more than the {} that are read", file->size(), most));
  std::string out(file->size(), '\0');
  file->read(0, out.size(), reinterpret_cast<std::byte*>(out.data()));
  return out;
}

std::string system_text(int code) { return std::generic_category().message(code); }

std::string join_path(const std::string& folder, const std::string& name) {
  return (fs::path(folder) / name).string();
}

std::vector<std::string> files_in(const std::string& folder) {
  std::error_code fault, ignored;
  std::vector<std::string> out;
  for (auto it = fs::directory_iterator(folder, fault); !fault && it != fs::directory_iterator();
       it.increment(fault))
    if (!it->is_directory(ignored)) out.push_back(it->path().filename().string());
  if (fault) throw Error(in_file(folder), "cannot list the folder: " + fault.message());
  std::sort(out.begin(), out.end());
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
