#include "lib/base/arena.h"

#include <fmt/format.h>
#include <sys/mman.h>

#include "lib/base/error.h"

namespace moelora {
namespace {

constexpr size_t kHugePage = size_t{2} << 20;

}  // namespace

std::span<std::byte> Arena::take(size_t bytes) {
  if (bytes > size_) {
    release();
    const size_t size = (bytes + kHugePage - 1) / kHugePage * kHugePage;
    void* const data =
        mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (data == MAP_FAILED) throw Error("", fmt::format("out of memory for {} bytes", size));
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

}  // namespace moelora
