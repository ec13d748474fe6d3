#pragma once

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

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

// All of a file of at most `most` bytes. Throws Error.
std::string read_text(const std::string& path, uint64_t most);

std::string system_text(int code);  // what the system calls an errno

// ---- folders ----

std::string join_path(const std::string& folder, const std::string& name);

// The names in a folder, those of folders left out, sorted. Throws Error when it cannot be listed.
std::vector<std::string> files_in(const std::string& folder);

// Those of `names` that end in one of `endings`, in their order.
std::vector<std::string> ending_in(const std::vector<std::string>& names,
                                   std::initializer_list<std::string_view> endings);

}  // namespace moelora
