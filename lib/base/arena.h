#pragma once

#include <condition_variable>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <mutex>
#include <span>
#include <vector>

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

// Work buffers of many threads within one limit. They are given out in the order of the callers'
// numbers 0, 1, 2 .., whoever asks first: so a caller may hold a buffer while it waits for what a
// lower number does, and that one never waits for memory held by higher numbers. Buffers that come
// back are kept for the next, and let go where their memory is needed for another size.
class ArenaPool {
 public:
  explicit ArenaPool(uint64_t limit) : limit_(limit), free_(limit) {}

  struct GiveBack {
    ArenaPool* pool;
    uint64_t bytes;
    void operator()(Arena* arena) const { pool->give_back(bytes, arena); }
  };
  using Lease = std::unique_ptr<Arena, GiveBack>;  // a buffer in use; its end gives it back

  // A buffer meant for `bytes` bytes; waits for its turn and until so much is free. More than the
  // limit counts as the limit. Throws Stopped after stop().
  Lease take(size_t number, uint64_t bytes);

  void stop();  // some number will never come: wakes all who wait
  struct Stopped {};

 private:
  struct Kept {
    uint64_t bytes;
    std::unique_ptr<Arena> arena;
  };
  void give_back(uint64_t bytes, Arena* arena);
  size_t find_kept(uint64_t bytes) const;
  uint64_t kept_bytes() const;

  const uint64_t limit_;
  std::mutex mutex_;
  std::condition_variable moved_;
  uint64_t free_;  // neither in use nor kept
  std::vector<Kept> kept_;
  size_t next_ = 0;
  bool stopped_ = false;
};

}  // namespace moelora
