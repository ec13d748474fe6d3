#include "lib/io/packed_bytes.h"

#include <algorithm>
#include <memory>
#include <numeric>

namespace moelora {
namespace {

class PackedBytes final : public Source {
 public:
  explicit PackedBytes(SourcePtr inner)
      : Source(DType::U8, inner->elements() * dtype_bits(inner->dtype()) / 8),
        inner_(std::move(inner)),
        bits_(dtype_bits(inner_->dtype())) {}

  void read(int64_t first, int64_t count, std::byte* out) const override {
    const int64_t from = first * 8 / bits_;
    const int64_t to = std::min(inner_->elements(), (first + count) * 8 / bits_);
    inner_->read(from, to - from, out);
  }

  // Bytes that hold a whole number of elements: 1 for F4, 3 for F6.
  int64_t granule() const override { return std::lcm(8, bits_) / 8; }
  std::string where() const override { return inner_->where(); }
  std::vector<std::string> inputs() const override { return inner_->inputs(); }
  std::string change() const override { return inner_->change(); }

 private:
  SourcePtr inner_;
  int64_t bits_;
};

}  // namespace

Tensor in_whole_bytes(const Tensor& tensor) {
  if (dtype_bits(tensor.dtype()) % 8 == 0) return tensor;
  const Shape flat = {static_cast<int64_t>(tensor.bytes())};
  if (tensor.pieces().empty()) return Tensor::zeros(DType::U8, flat);
  return Tensor(std::make_shared<PackedBytes>(tensor.pieces().front().source), flat);
}

}  // namespace moelora
