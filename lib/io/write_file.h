#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

namespace moelora {

// A new file of a known size, written by pwrite from any thread.
class WriteFile {
 public:
  // Creates `at` (which must not exist) and reserves `size` bytes. Errors name `path`, the final
  // one.
  WriteFile(const std::string& at, std::string path, uint64_t size, bool durable);
  ~WriteFile();
  WriteFile(const WriteFile&) = delete;
  WriteFile& operator=(const WriteFile&) = delete;

  // REQUIRES: offset + bytes.size() <= size. Bytes never written read as zero.
  void write(uint64_t offset, std::span<const std::byte> bytes);

  // Syncs when durable, and closes; a failure of either is an Error and never retried.
  void finish();

  const std::string& path() const { return path_; }

 private:
  [[noreturn]] void fail(const std::string& what, int error) const;

  std::string path_;
  uint64_t size_;
  bool durable_;
  int fd_ = -1;
};

}  // namespace moelora
