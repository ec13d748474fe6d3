#include "lib/base/scale.h"

#include <fmt/core.h>

#include <algorithm>
#include <atomic>
#include <cmath>

#include "lib/base/cast.h"
#include "lib/base/error.h"

namespace moelora {
namespace {

class ScaledSource final : public ComputedSource {
 public:
  ScaledSource(const SourcePtr& inner, double factor)
      : ComputedSource(inner, inner->dtype(), inner->elements()),
        factor_(factor),
        exact_(is_power_of_two(factor)) {}

  void read(int64_t first, int64_t count, std::byte* out) const override {
    inner_->read(first, count, out);
    std::vector<double> before(static_cast<size_t>(std::min(count, kChunk))), after(before.size());
    for (int64_t at = 0; at < count; at += kChunk) {
      const int64_t n = std::min(kChunk, count - at);
      std::byte* here = out + at * dtype_bytes(dtype());
      cast_elements(dtype(), DType::F64, n, here, as_bytes(before));
      for (int64_t i = 0; i < n; ++i)
        after[static_cast<size_t>(i)] = factor_ * before[static_cast<size_t>(i)];
      cast_elements(DType::F64, dtype(), n, as_bytes(after), here);
      check(before, n, here);
    }
  }

  std::string change() const override {
    return change_and(fmt::format("scaled by {}{}", factor_, exact_ ? " (exact)" : ""));
  }

 private:
  static constexpr int64_t kChunk = int64_t{1} << 14;

  static std::byte* as_bytes(std::vector<double>& values) {
    return reinterpret_cast<std::byte*>(values.data());
  }

  void check(const std::vector<double>& before, int64_t n, const std::byte* rounded) const {
    std::vector<double> found(static_cast<size_t>(n));
    cast_elements(dtype(), DType::F64, n, rounded, as_bytes(found));
    for (size_t i = 0; i < found.size(); ++i) {
      if (std::isinf(found[i]) && std::isfinite(before[i]))
        throw Error(where(),
                    fmt::format("{} scaled by {} is more than {} can hold", before[i], factor_,
                                dtype_name(dtype())),
                    {"convert with ", Option::dtype, " f32"});
      if (found[i] / factor_ != before[i] && !std::isnan(before[i])) exact_ = false;
    }
  }

  double factor_;
  mutable std::atomic<bool> exact_;  // so far
};

SourcePtr scale_source(SourcePtr source, double factor) {
  if (!is_float(source->dtype()))
    throw Error(
        source->where(),
        fmt::format("cannot scale {}, only F64, F32, F16 and BF16", dtype_name(source->dtype())),
        "convert the adapter to a float type first");
  return std::make_shared<ScaledSource>(source, factor);
}

}  // namespace

bool is_power_of_two(double factor) {
  int exponent = 0;
  return std::isfinite(factor) && std::fabs(std::frexp(factor, &exponent)) == 0.5;
}

Tensor Scaler::scaled(const Tensor& tensor, double factor) {
  if (factor == 1) return tensor;
  return tensor.map_sources(tensor.dtype(), [&](const SourcePtr& source) {
    SourcePtr& slot = done_[{source, factor}];
    if (!slot) slot = scale_source(source, factor);
    return slot;
  });
}

}  // namespace moelora
