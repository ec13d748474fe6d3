#include "lib/base/cast.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <map>

#include "lib/base/error.h"

namespace moelora {
namespace {

struct Bits16 {
  int exponent_bits, mantissa_bits;
};
constexpr Bits16 kF16{5, 10}, kBF16{8, 7};

// A double from the bits of a 16-bit float; exact, NaN payloads kept.
constexpr double widen(uint16_t bits, Bits16 f) {
  const uint64_t sign = uint64_t{bits} >> 15 << 63;
  const int mantissa_bits = f.mantissa_bits;
  const uint64_t mantissa = bits & ((1U << mantissa_bits) - 1);
  const int exponent = (bits >> mantissa_bits) & ((1 << f.exponent_bits) - 1);
  const int bias = (1 << (f.exponent_bits - 1)) - 1;
  const int shift = 52 - mantissa_bits;
  if (exponent == (1 << f.exponent_bits) - 1)
    return std::bit_cast<double>(sign | uint64_t{0x7FF} << 52 | mantissa << shift);
  if (exponent != 0)
    return std::bit_cast<double>(sign | static_cast<uint64_t>(exponent - bias + 1023) << 52 |
                                 mantissa << shift);
  const double unit =
      std::bit_cast<double>(static_cast<uint64_t>(1 - bias - mantissa_bits + 1023) << 52);
  const double value = static_cast<double>(mantissa) * unit;
  return sign != 0 ? -value : value;
}

// The nearest 16-bit float, ties to even, rounding once.
constexpr uint16_t narrow(double value, Bits16 f) {
  const auto bits = std::bit_cast<uint64_t>(value);
  const auto sign = static_cast<uint64_t>(bits >> 63 << 15);
  const uint64_t mantissa = bits & ((uint64_t{1} << 52) - 1);
  const int exponent = static_cast<int>(bits >> 52 & 0x7FF);
  const uint64_t infinity = ((uint64_t{1} << f.exponent_bits) - 1) << f.mantissa_bits;
  const int shift = 52 - f.mantissa_bits;
  if (exponent == 0x7FF && mantissa != 0)
    return static_cast<uint16_t>(sign | infinity | uint64_t{1} << (f.mantissa_bits - 1) |
                                 mantissa >> shift);
  const int bias = (1 << (f.exponent_bits - 1)) - 1;
  const int to_exponent = exponent - 1023 + bias;
  if (exponent == 0x7FF || to_exponent >= (1 << f.exponent_bits) - 1)
    return static_cast<uint16_t>(sign | infinity);
  // Below the normal range the hidden bit becomes explicit and the shift grows.
  const bool normal = to_exponent > 0;
  const int drop = normal ? shift : shift + 1 - to_exponent;
  if (drop > 54) return static_cast<uint16_t>(sign);
  const uint64_t kept = normal ? (static_cast<uint64_t>(to_exponent) << 52 | mantissa)
                               : (exponent == 0 ? mantissa : uint64_t{1} << 52 | mantissa);
  const uint64_t half = uint64_t{1} << (drop - 1);
  const uint64_t rounded = (kept + half - 1 + (kept >> drop & 1)) >> drop;
  return static_cast<uint16_t>(sign | rounded);  // a carry moves to the next exponent, or infinity
}

template <class To, class From>
void convert_all(int64_t count, const std::byte* in, std::byte* out, auto&& f) {
  for (int64_t i = 0; i < count; ++i) {
    From x;
    std::memcpy(&x, in + i * static_cast<int64_t>(sizeof(From)), sizeof x);
    const To y = f(x);
    std::memcpy(out + i * static_cast<int64_t>(sizeof(To)), &y, sizeof y);
  }
}

double quiet(float x) { return static_cast<double>(x); }

float to_f32(double x) { return static_cast<float>(x); }

void to_doubles(DType from, int64_t count, const std::byte* in, std::byte* out) {
  switch (from) {
    case DType::F16:
      return convert_all<double, uint16_t>(count, in, out,
                                           [](uint16_t b) { return widen(b, kF16); });
    case DType::BF16:
      return convert_all<double, uint16_t>(count, in, out,
                                           [](uint16_t b) { return widen(b, kBF16); });
    case DType::F32:
      return convert_all<double, float>(count, in, out, quiet);
    default:
      std::memcpy(out, in, static_cast<size_t>(count) * sizeof(double));
  }
}

void from_doubles(DType to, int64_t count, const std::byte* in, std::byte* out) {
  switch (to) {
    case DType::F16:
      return convert_all<uint16_t, double>(count, in, out,
                                           [](double x) { return narrow(x, kF16); });
    case DType::BF16:
      return convert_all<uint16_t, double>(count, in, out,
                                           [](double x) { return narrow(x, kBF16); });
    case DType::F32:
      return convert_all<float, double>(count, in, out, to_f32);
    default:
      std::memcpy(out, in, static_cast<size_t>(count) * sizeof(double));
  }
}

class CastSource final : public Source {
 public:
  CastSource(SourcePtr inner, DType to) : Source(to, inner->elements()), inner_(std::move(inner)) {}

  void read(int64_t first, int64_t count, std::byte* out) const override {
    const int64_t granule = inner_->granule();
    const int64_t chunk = (kChunk + granule - 1) / granule * granule;
    const auto in_width = static_cast<size_t>(dtype_bytes(inner_->dtype()));
    std::vector<std::byte> held(static_cast<size_t>(std::min(count, chunk)) * in_width);
    for (int64_t at = 0; at < count; at += chunk) {
      const int64_t n = std::min(chunk, count - at);
      inner_->read(first + at, n, held.data());
      cast_elements(inner_->dtype(), dtype(), n, held.data(), out + at * dtype_bytes(dtype()));
    }
  }

  int64_t granule() const override { return inner_->granule(); }
  std::string where() const override { return inner_->where(); }
  std::vector<std::string> inputs() const override { return inner_->inputs(); }

  std::string change() const override {
    std::string text = inner_->change();
    if (!text.empty()) text += ", ";
    text += "cast " + std::string(dtype_name(inner_->dtype())) + " to " +
            std::string(dtype_name(dtype()));
    return cast_is_exact(inner_->dtype(), dtype()) ? text + " (exact)" : text;
  }

 private:
  static constexpr int64_t kChunk = int64_t{1} << 17;
  SourcePtr inner_;
};

void require_float(DType dtype, const std::string& where) {
  if (!is_float(dtype))
    throw Error(where, "cannot cast " + std::string(dtype_name(dtype)) +
                           ", only F64, F32, F16 and BF16 convert into each other");
}

}  // namespace

bool cast_is_exact(DType from, DType to) {
  return from == to || to == DType::F64 || (to == DType::F32 && from != DType::F64);
}

void cast_elements(DType from, DType to, int64_t count, const std::byte* in, std::byte* out) {
  std::array<double, 512> held;
  for (int64_t at = 0; at < count; at += static_cast<int64_t>(held.size())) {
    const int64_t n = std::min(static_cast<int64_t>(held.size()), count - at);
    auto* doubles = reinterpret_cast<std::byte*>(held.data());
    to_doubles(from, n, in + at * dtype_bytes(from), doubles);
    from_doubles(to, n, doubles, out + at * dtype_bytes(to));
  }
}

SourcePtr cast_source(SourcePtr source, DType to) {
  if (source->dtype() == to) return source;
  require_float(source->dtype(), source->where());
  require_float(to, source->where());
  return std::make_shared<CastSource>(std::move(source), to);
}

TensorMap cast_tensors(const TensorMap& tensors, DType to) {
  require_float(to, "cast");
  std::map<SourcePtr, SourcePtr> done;
  const auto cast = [&](const SourcePtr& source) {
    SourcePtr& slot = done[source];
    if (!slot) slot = cast_source(source, to);
    return slot;
  };
  TensorMap out;
  for (const auto& [name, tensor] : tensors)
    out.emplace(name, is_float(tensor.dtype()) ? tensor.map_sources(to, cast) : tensor);
  return out;
}

std::vector<double> read_double(const Tensor& tensor) {
  require_float(tensor.dtype(), "tensor");
  const std::vector<std::byte> bytes = tensor.read();
  std::vector<double> out(static_cast<size_t>(tensor.elements()));
  cast_elements(tensor.dtype(), DType::F64, tensor.elements(), bytes.data(),
                reinterpret_cast<std::byte*>(out.data()));
  return out;
}

}  // namespace moelora
