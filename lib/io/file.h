#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>

namespace moelora {

// A regular file opened read-only. Reads are pread: a file that shrinks underneath gives an Error,
// never a SIGBUS. Safe to share between threads.
class File {
 public:
  // Throws Error when `path` is absent, unreadable or not a regular file (FIFO, device, folder).
  static std::shared_ptr<const File> open(const std::string& path);
  ~File();
  File(const File&) = delete;
  File& operator=(const File&) = delete;

  const std::string& path() const { return path_; }
  uint64_t size() const { return size_; }

  // Fills `out` with bytes [offset, offset + count). Throws Error when the file is shorter by now.
  void read(uint64_t offset, uint64_t count, std::byte* out) const;

  // Throws Error when size, mtime, device or inode differ from those at open(): what the output
  // was made from is no longer what is on disk.
  void check_unchanged() const;

  // Same device and inode, hence also through symbolic and hard links.
  bool is_same_file(const std::string& path) const;

 private:
  File() = default;
  std::string path_;
  int fd_ = -1;
  uint64_t size_ = 0, device_ = 0, inode_ = 0;
  int64_t mtime_ns_ = 0;
};

using FilePtr = std::shared_ptr<const File>;

}  // namespace moelora
