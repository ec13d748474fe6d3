#include "lib/io/file_stamp.h"

#include <sys/stat.h>

#include <cerrno>
#include <system_error>
#include <utility>

#include "lib/base/error.h"

namespace moelora {
namespace {

int64_t mtime_of(const struct stat& s) {
  return static_cast<int64_t>(s.st_mtim.tv_sec) * 1'000'000'000 + s.st_mtim.tv_nsec;
}

}  // namespace

FileStamp::FileStamp(std::string where) : path(std::move(where)) {}

FileStamp::FileStamp(std::string where, const struct stat& s)
    : path(std::move(where)),
      size(static_cast<uint64_t>(s.st_size)),
      device(s.st_dev),
      inode(s.st_ino),
      mtime_ns(mtime_of(s)) {}

void FileStamp::check_unchanged() const {
  struct stat s {};
  if (::stat(path.c_str(), &s) != 0)
    throw Error(in_file(path),
                "was removed while it was read: " + std::generic_category().message(errno));
  if (FileStamp(path, s) != *this)
    throw Error(in_file(path), "was changed or replaced while it was read",
                "Run again when nothing writes to it.");
}

}  // namespace moelora
