#pragma once

#include <cstdint>
#include <string>

struct stat;

namespace moelora {

// What a file was when it was opened.
struct FileStamp {
  std::string path;
  uint64_t size = 0, device = 0, inode = 0;
  int64_t mtime_ns = 0;

  FileStamp() = default;
  explicit FileStamp(std::string where);
  FileStamp(std::string where, const struct stat& s);

  bool operator==(const FileStamp&) const = default;
  // Throws Error when size, mtime, device or inode of what `path` names by now differ: what was
  // made of it is no longer what is on disk.
  void check_unchanged() const;
};

}  // namespace moelora
