#include "lib/engine/vllm/plan/torch_values.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <utility>
#include <vector>

#include "lib/base/cast.h"
#include "lib/base/error.h"

namespace moelora {
namespace {

constexpr int64_t kChunk = int64_t{1} << 14;

std::byte* bytes_of(std::vector<float>& values) {
  return reinterpret_cast<std::byte*>(values.data());
}

// The elements of a tensor that is no whole source.
class TensorSource final : public Source {
 public:
  explicit TensorSource(const Tensor& tensor)
      : Source(tensor.dtype(), tensor.elements()), flat_(tensor.reshape({tensor.elements()})) {}
  void read(int64_t first, int64_t count, std::byte* out) const override {
    flat_.slice(0, first, count).read(out);
  }
  std::string where() const override {
    return flat_.pieces().empty() ? "zeros" : flat_.pieces().front().source->where();
  }

 private:
  Tensor flat_;
};

// FP8 with `mantissa` bits below the leading one; E5M2 has infinities, E4M3 has not.
float small_float(uint8_t bits, int mantissa) {
  const int exponent_bits = 7 - mantissa, bias = (1 << (exponent_bits - 1)) - 1;
  const int exponent = (bits & 0x7F) >> mantissa, fraction = bits & ((1 << mantissa) - 1);
  const bool top = exponent == (1 << exponent_bits) - 1;
  float out = exponent == 0 ? std::ldexp(static_cast<float>(fraction), 1 - bias - mantissa)
                            : std::ldexp(static_cast<float>(fraction + (1 << mantissa)),
                                         exponent - bias - mantissa);
  if (mantissa == 2 && top) out = fraction == 0 ? HUGE_VALF : NAN;
  if (mantissa == 3 && top && fraction == 7) out = NAN;
  return (bits & 0x80) != 0 ? -out : out;
}

template <class T>
float number(const std::byte* at) {
  T value;
  std::memcpy(&value, at, sizeof value);
  return static_cast<float>(value);
}

using ToFloat = float (*)(const std::byte*);

ToFloat to_float(DType dtype) {
  switch (dtype) {
    case DType::BOOL:
    case DType::U8:
      return number<uint8_t>;
    case DType::I8:
      return number<int8_t>;
    case DType::I16:
      return number<int16_t>;
    case DType::U16:
      return number<uint16_t>;
    case DType::I32:
      return number<int32_t>;
    case DType::U32:
      return number<uint32_t>;
    case DType::I64:
      return number<int64_t>;
    case DType::U64:
      return number<uint64_t>;
    case DType::F8_E4M3:
      return [](const std::byte* at) { return small_float(static_cast<uint8_t>(*at), 3); };
    case DType::F8_E5M2:
      return [](const std::byte* at) { return small_float(static_cast<uint8_t>(*at), 2); };
    default:
      return nullptr;
  }
}

// Integers and FP8 as F32.
class NumberSource final : public Source {
 public:
  NumberSource(SourcePtr inner, ToFloat one)
      : Source(DType::F32, inner->elements()), inner_(std::move(inner)), one_(one) {}
  void read(int64_t first, int64_t count, std::byte* out) const override {
    const auto width = static_cast<size_t>(dtype_bytes(inner_->dtype()));
    std::vector<std::byte> held(static_cast<size_t>(count) * width);
    inner_->read(first, count, held.data());
    for (size_t i = 0; i < static_cast<size_t>(count); ++i) {
      const float value = one_(held.data() + i * width);
      std::memcpy(out + i * sizeof value, &value, sizeof value);
    }
  }
  std::string where() const override { return inner_->where(); }

 private:
  SourcePtr inner_;
  ToFloat one_;
};

class ProductSource final : public Source {
 public:
  ProductSource(SourcePtr inner, double factor)
      : Source(inner->dtype(), inner->elements()),
        inner_(std::move(inner)),
        factor_(static_cast<float>(factor)) {}

  void read(int64_t first, int64_t count, std::byte* out) const override {
    inner_->read(first, count, out);
    std::vector<float> values(static_cast<size_t>(std::min(count, kChunk)));
    for (int64_t at = 0; at < count; at += kChunk) {
      const int64_t n = std::min(kChunk, count - at);
      std::byte* here = out + at * dtype_bytes(dtype());
      cast_elements(dtype(), DType::F32, n, here, bytes_of(values));
      for (float& value : values) value *= factor_;
      cast_elements(DType::F32, dtype(), n, bytes_of(values), here);
    }
  }

  int64_t granule() const override { return inner_->granule(); }
  std::string where() const override { return inner_->where(); }
  std::vector<std::string> inputs() const override { return inner_->inputs(); }

 private:
  SourcePtr inner_;
  float factor_;
};

bool is_whole_source(const Tensor& tensor) {
  if (tensor.pieces().size() != 1) return false;
  const Piece& piece = tensor.pieces().front();
  if (piece.offset != 0 || piece.source->elements() != tensor.elements()) return false;
  int64_t step = 1;
  for (size_t a = piece.count.size(); a-- > 0; step *= piece.count[a])
    if (piece.stride[a] != step && piece.count[a] != 1) return false;
  return step == tensor.elements();
}

}  // namespace

SourcePtr flat_source(const Tensor& tensor) {
  if (is_whole_source(tensor)) return tensor.pieces().front().source;
  return std::make_shared<TensorSource>(tensor);
}

SourcePtr torch_cast(SourcePtr source, DType to) {
  if (source->dtype() == to) return source;
  if (is_float(source->dtype())) return cast_source(cast_source(std::move(source), DType::F32), to);
  const ToFloat one = to_float(source->dtype());
  if (one == nullptr)
    throw Error(source->where(),
                std::string(dtype_name(source->dtype())) + " is no type that torch can cast");
  return cast_source(std::make_shared<NumberSource>(std::move(source), one), to);
}

SourcePtr torch_product(SourcePtr source, double factor) {
  if (factor == 1) return source;
  return std::make_shared<ProductSource>(std::move(source), factor);
}

}  // namespace moelora
