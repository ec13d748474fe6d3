#pragma once

#include <cstdint>
#include <vector>

namespace moelora {

// out[i * stride + j] = sum over k of x[i][k] * w[j][k]: x [n, k] and w [m, k] row-major, as a
// Linear's inputs and weights lie. Each sum has sixteen partial sums, products and sums rounded
// apart (no fused multiply-add): one result, bit for bit, on every processor. REQUIRES m <= stride.
struct DotProducts {
  const float* x;
  int64_t n;
  const float* w;
  int64_t m;
  int64_t k;
  float* out;
  int64_t stride;
};
void multiply(const DotProducts& request);

// The ways that this processor can take, for tests; multiply() takes the last.
using MultiplyWay = void (*)(const DotProducts& request);
std::vector<MultiplyWay> multiply_ways();

}  // namespace moelora
