#pragma once

#include <cstddef>
#include <span>

namespace moelora {

// A work buffer that keeps its memory from use to use, in huge pages where the system has them:
// touching new 4 KiB pages costs more than copying into old ones. Contents are undefined.
class Arena {
 public:
  Arena() = default;
  ~Arena() { release(); }
  Arena(const Arena&) = delete;
  Arena& operator=(const Arena&) = delete;

  // At least `bytes` bytes, aligned to a cache line, valid until the next call.
  std::span<std::byte> take(size_t bytes);
  void release();

 private:
  std::byte* data_ = nullptr;
  size_t size_ = 0;
};

}  // namespace moelora
