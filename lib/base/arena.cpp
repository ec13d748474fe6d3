#include "lib/base/arena.h"

#include <sys/mman.h>

#include <algorithm>
#include <new>

namespace moelora {
namespace {

// Sizes are multiples of huge pages, so that a buffer more often fits again.
uint64_t whole_pages(uint64_t bytes) {
  constexpr uint64_t kHugePage = uint64_t{2} << 20;
  return (bytes + kHugePage - 1) / kHugePage * kHugePage;
}

}  // namespace

std::span<std::byte> Arena::take(size_t bytes) {
  if (bytes > size_) {
    release();
    const size_t size = whole_pages(bytes);
    void* const data =
        mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) throw std::bad_alloc();
    madvise(data, size, MADV_HUGEPAGE);
    data_ = static_cast<std::byte*>(data);
    size_ = size;
  }
  return {data_, bytes};
}

void Arena::release() {
  if (data_ != nullptr) munmap(data_, size_);
  data_ = nullptr;
  size_ = 0;
}

ArenaPool::Lease ArenaPool::take(size_t number, uint64_t bytes) {
  bytes = std::min(whole_pages(bytes), limit_);
  std::unique_lock lock(mutex_);
  moved_.wait(lock, [&] {
    return stopped_ ||
           (number == next_ && (find_kept(bytes) < kept_.size() || bytes <= free_ + kept_bytes()));
  });
  if (stopped_) throw Stopped{};
  ++next_;
  moved_.notify_all();
  if (const size_t at = find_kept(bytes); at < kept_.size()) {
    Kept kept = std::move(kept_[at]);
    kept_.erase(kept_.begin() + static_cast<std::ptrdiff_t>(at));
    return Lease(kept.arena.release(), {this, kept.bytes});
  }
  while (free_ < bytes) {
    free_ += kept_.back().bytes;
    kept_.pop_back();
  }
  free_ -= bytes;
  return Lease(new Arena, {this, bytes});
}

// The smallest kept buffer that fits without wasting half of itself; kept_.size() when none does.
size_t ArenaPool::find_kept(uint64_t bytes) const {
  size_t best = kept_.size();
  for (size_t i = 0; i < kept_.size(); ++i) {
    const uint64_t size = kept_[i].bytes;
    if (size < bytes || size > 2 * bytes) continue;
    if (best == kept_.size() || size < kept_[best].bytes) best = i;
  }
  return best;
}

uint64_t ArenaPool::kept_bytes() const {
  uint64_t sum = 0;
  for (const Kept& kept : kept_) sum += kept.bytes;
  return sum;
}

void ArenaPool::give_back(uint64_t bytes, Arena* arena) {
  const std::lock_guard lock(mutex_);
  kept_.push_back({bytes, std::unique_ptr<Arena>(arena)});
  moved_.notify_all();
}

void ArenaPool::stop() {
  const std::lock_guard lock(mutex_);
  stopped_ = true;
  moved_.notify_all();
}

}  // namespace moelora
