#include "lib/base/cast.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>
#include <map>

#include "lib/base/error.h"

namespace moelora {

// ---- elements ----

namespace {

// A 16-bit float format inside a double.
struct Format {
  int exponent_bits, mantissa_bits;
  constexpr int bias() const { return (1 << (exponent_bits - 1)) - 1; }
  constexpr int top_exponent() const { return (1 << exponent_bits) - 1; }
};
constexpr Format kF16{5, 10}, kBF16{8, 7};

uint16_t narrow(uint64_t bits, Format f) {
  const uint64_t sign = bits >> 63 << 15;
  const uint64_t mantissa = bits & ((uint64_t{1} << 52) - 1);
  const int exponent = static_cast<int>(bits >> 52 & 0x7FF);
  const auto infinity = static_cast<uint64_t>(f.top_exponent()) << f.mantissa_bits;
  const int shift = 52 - f.mantissa_bits;
  if (exponent == 0x7FF && mantissa != 0)
    return static_cast<uint16_t>(sign | infinity | uint64_t{1} << (f.mantissa_bits - 1) |
                                 mantissa >> shift);
  const int to_exponent = exponent - 1023 + f.bias();
  if (to_exponent >= f.top_exponent()) return static_cast<uint16_t>(sign | infinity);
  // Below the normal range the hidden bit becomes explicit and more bits are dropped.
  const bool normal = to_exponent > 0;
  const int drop = normal ? shift : shift + 1 - to_exponent;
  if (drop > 54) return static_cast<uint16_t>(sign);
  const uint64_t hidden = normal ? static_cast<uint64_t>(to_exponent) : exponent == 0 ? 0U : 1U;
  const uint64_t kept = hidden << 52 | mantissa;
  const uint64_t half = uint64_t{1} << (drop - 1);
  // A carry moves on to the next exponent, and from the last one to infinity.
  return static_cast<uint16_t>(sign | (kept + half - 1 + (kept >> drop & 1)) >> drop);
}

template <class T>
T load(const std::byte* p, int64_t i) {
  T x;
  std::memcpy(&x, p + i * static_cast<int64_t>(sizeof x), sizeof x);
  return x;
}

template <class T>
void store(std::byte* p, int64_t i, T x) {
  std::memcpy(p + i * static_cast<int64_t>(sizeof x), &x, sizeof x);
}

template <class From, class F>
void map_elements(int64_t count, const std::byte* __restrict in, std::byte* __restrict out, F f) {
  for (int64_t i = 0; i < count; ++i) store(out, i, f(load<From>(in, i)));
}

// These four are written without branches, so that compilers vectorize loops over them.
inline uint32_t widen_bf16(uint16_t bits) {
  const uint32_t wide = uint32_t{bits} << 16;
  return (wide & 0x7FFFFFFFU) > 0x7F800000U ? wide | 0x00400000U : wide;
}

inline uint32_t widen_f16(uint16_t bits) {
  const uint32_t sign = (uint32_t{bits} & 0x8000U) << 16;
  const uint32_t magnitude = (uint32_t{bits} & 0x7FFFU) << 13;
  const uint32_t normal = magnitude + ((127U - 15U) << 23);
  // Exponent 0: as the mantissa of 2^-14 it is 2^-14 too large.
  const float small = std::bit_cast<float>(magnitude + (113U << 23)) - 0x1p-14F;
  const uint32_t special = magnitude + ((255U - 31U) << 23);
  const uint32_t quiet = magnitude > (0x7C00U << 13) ? 0x00400000U : 0U;
  uint32_t value = magnitude < (0x0400U << 13) ? std::bit_cast<uint32_t>(small) : normal;
  value = magnitude >= (0x7C00U << 13) ? special | quiet : value;
  return sign | value;
}

inline uint16_t narrow_bf16(uint32_t bits) {
  const uint32_t rounded = (bits + 0x7FFFU + (bits >> 16 & 1U)) >> 16;
  const uint32_t nan = bits >> 16 | 0x40U;
  return static_cast<uint16_t>((bits & 0x7FFFFFFFU) > 0x7F800000U ? nan : rounded);
}

inline uint16_t narrow_f16(uint32_t bits) {
  const uint32_t sign = bits >> 16 & 0x8000U, magnitude = bits & 0x7FFFFFFFU;
  const uint32_t normal =
      (magnitude - ((127U - 15U) << 23) + 0xFFFU + (magnitude >> 13 & 1U)) >> 13;
  // Adding a half puts the last kept bit of a small value at the last bit of the sum's mantissa,
  // where the addition rounds to nearest even.
  const uint32_t small = std::bit_cast<uint32_t>(std::bit_cast<float>(magnitude) + 0.5F) -
                         std::bit_cast<uint32_t>(0.5F);
  const uint32_t nan = 0x7E00U | (magnitude >> 13 & 0x3FFU);
  uint32_t value = magnitude < (113U << 23) ? small : normal;
  value = magnitude >= (143U << 23) ? 0x7C00U : value;
  value = magnitude > 0x7F800000U ? nan : value;
  return static_cast<uint16_t>(sign | value);
}

double to_f64(float x) { return static_cast<double>(x); }
float to_f32(double x) { return static_cast<float>(x); }

void to_floats(DType from, int64_t count, const std::byte* in, std::byte* out) {
  if (from == DType::BF16) return map_elements<uint16_t>(count, in, out, widen_bf16);
  if (from == DType::F16) return map_elements<uint16_t>(count, in, out, widen_f16);
  std::memcpy(out, in, static_cast<size_t>(count) * sizeof(float));
}

void from_floats(DType to, int64_t count, const std::byte* in, std::byte* out) {
  if (to == DType::BF16) return map_elements<uint32_t>(count, in, out, narrow_bf16);
  if (to == DType::F16) return map_elements<uint32_t>(count, in, out, narrow_f16);
  if (to == DType::F64) return map_elements<float>(count, in, out, to_f64);
  std::memcpy(out, in, static_cast<size_t>(count) * sizeof(float));
}

void from_doubles(DType to, int64_t count, const std::byte* in, std::byte* out) {
  if (to == DType::BF16) return map_elements<uint64_t>(count, in, out, bf16_from_f64);
  if (to == DType::F16)
    return map_elements<uint64_t>(count, in, out, [](uint64_t bits) { return narrow(bits, kF16); });
  if (to == DType::F32) return map_elements<double>(count, in, out, to_f32);
  std::memcpy(out, in, static_cast<size_t>(count) * sizeof(double));
}

}  // namespace

uint32_t f32_from_bf16(uint16_t bits) { return widen_bf16(bits); }
uint16_t bf16_from_f64(uint64_t bits) { return narrow(bits, kBF16); }

// Every value of a 16-bit type is a float, so all but F64 goes through floats without loss.
void cast_elements(DType from, DType to, int64_t count, const std::byte* in, std::byte* out) {
  if (count == 0) return;  // and perhaps no bytes at all
  if (from == DType::F64) return from_doubles(to, count, in, out);
  if (from == DType::F32) return from_floats(to, count, in, out);
  if (to == DType::F32) return to_floats(from, count, in, out);
  std::array<std::byte, 8192> floats;
  constexpr auto kStep = static_cast<int64_t>(floats.size() / sizeof(float));
  for (int64_t at = 0; at < count; at += kStep) {
    const int64_t n = std::min(kStep, count - at);
    to_floats(from, n, in + at * dtype_bytes(from), floats.data());
    from_floats(to, n, floats.data(), out + at * dtype_bytes(to));
  }
}

// ---- sources and tensors ----

namespace {

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
