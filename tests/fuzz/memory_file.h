#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <string>
#include <string_view>

#include "tests/fuzz/fuzz.h"

// A file that only this process sees.
class MemoryFile {
 public:
  explicit MemoryFile(std::string_view bytes) : fd_(memfd_create("f", 0)) {
    require(fd_ >= 0);
    for (size_t at = 0; at < bytes.size();) {
      const ssize_t put = write(fd_, bytes.data() + at, bytes.size() - at);
      require(put > 0);
      at += static_cast<size_t>(put);
    }
  }
  ~MemoryFile() { close(fd_); }
  MemoryFile(const MemoryFile&) = delete;
  MemoryFile& operator=(const MemoryFile&) = delete;

  std::string path() const { return "/proc/self/fd/" + std::to_string(fd_); }

 private:
  int fd_;
};
