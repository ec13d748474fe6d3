#include "lib/base/cast.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <map>

#include "lib/base/error.h"

namespace moelora {

// ---- elements ----

namespace {

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

// These are written without branches, so that compilers vectorize loops over them.
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

// The bits of a float that rounds to 16 bits as the double does, once: what the float cannot hold
// is cut off, and its last bit is set where that was not nothing.
inline uint32_t cut_to_f32(uint64_t bits) {
  const double x = std::bit_cast<double>(bits);
  const auto near = static_cast<float>(x);
  const uint32_t beyond = std::fabs(double{near}) > std::fabs(x) ? 1U : 0U;
  const uint32_t inexact = double{near} < x || double{near} > x ? 1U : 0U;
  return (std::bit_cast<uint32_t>(near) - beyond) | inexact;
}
uint16_t f16_from_f64(uint64_t bits) { return narrow_f16(cut_to_f32(bits)); }

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
  if (to == DType::F16) return map_elements<uint64_t>(count, in, out, f16_from_f64);
  if (to == DType::F32) return map_elements<double>(count, in, out, to_f32);
  std::memcpy(out, in, static_cast<size_t>(count) * sizeof(double));
}

}  // namespace

uint32_t f32_from_bf16(uint16_t bits) { return widen_bf16(bits); }
uint16_t bf16_from_f64(uint64_t bits) { return narrow_bf16(cut_to_f32(bits)); }

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

class CastSource final : public ComputedSource {
 public:
  CastSource(const SourcePtr& inner, DType to) : ComputedSource(inner, to, inner->elements()) {}

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

  std::string change() const override {
    return change_and(fmt::format("cast {} to {}{}", dtype_name(inner_->dtype()),
                                  dtype_name(dtype()),
                                  cast_is_exact(inner_->dtype(), dtype()) ? " (exact)" : ""));
  }

 private:
  static constexpr int64_t kChunk = int64_t{1} << 17;
};

void require_float(DType dtype, const std::string& where) {
  if (!is_float(dtype))
    throw Error(where, fmt::format("cannot cast {}, only F64, F32, F16 and BF16 convert into each "
                                   "other",
                                   dtype_name(dtype)));
}

}  // namespace

bool cast_is_exact(DType from, DType to) {
  return from == to || to == DType::F64 || (to == DType::F32 && from != DType::F64);
}

SourcePtr cast_source(SourcePtr source, DType to) {
  if (source->dtype() == to) return source;
  require_float(source->dtype(), source->where());
  require_float(to, source->where());
  return std::make_shared<CastSource>(source, to);
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
