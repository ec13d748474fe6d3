#include "lib/adapter/random_source.h"

#include <cstring>

namespace moelora {
namespace {

// SplitMix64 (Steele, Lea, Flood 2014): a full-period mix of a counter.
uint64_t mix(uint64_t x) {
  x += 0x9e3779b97f4a7c15;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
  x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
  return x ^ (x >> 31);
}

uint64_t stream_of(uint64_t seed, std::string_view name) {
  uint64_t state = mix(seed);
  for (const char c : name) state = mix(state ^ static_cast<unsigned char>(c));
  return state;
}

class RandomSource final : public Source {
 public:
  RandomSource(uint64_t stream, int64_t elements, double bound)
      : Source(DType::F32, elements), stream_(stream), bound_(static_cast<float>(bound)) {}

  void read(int64_t first, int64_t count, std::byte* out) const override {
    for (int64_t i = 0; i < count; ++i) {
      const uint64_t bits = mix(stream_ + static_cast<uint64_t>(first + i)) >> 40;  // 24 bits
      const float unit = static_cast<float>(bits) * 0x1p-23F - 1.0F;                // [-1, 1)
      const float value = unit * bound_;
      std::memcpy(out + i * 4, &value, 4);
    }
  }

  std::string where() const override { return "random numbers"; }

 private:
  uint64_t stream_;
  float bound_;
};

}  // namespace

SourcePtr random_source(uint64_t seed, std::string_view name, int64_t elements, double bound) {
  return std::make_shared<RandomSource>(stream_of(seed, name), elements, bound);
}

}  // namespace moelora
