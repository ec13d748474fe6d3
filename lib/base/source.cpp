#include "lib/base/source.h"

#include <cstring>

namespace moelora {

std::string ComputedSource::change_and(const std::string& step) const {
  const std::string before = inner_->change();
  return before.empty() ? step : before + ", " + step;
}

MemorySource::MemorySource(DType dtype, std::vector<std::byte> bytes, std::string where)
    : Source(dtype, static_cast<int64_t>(bytes.size()) / dtype_bytes(dtype)),
      bytes_(std::move(bytes)),
      where_(std::move(where)) {}

void MemorySource::read(int64_t first, int64_t count, std::byte* out) const {
  const auto width = static_cast<size_t>(dtype_bytes(dtype()));
  std::memcpy(out, bytes_.data() + static_cast<size_t>(first) * width,
              static_cast<size_t>(count) * width);
}

}  // namespace moelora
