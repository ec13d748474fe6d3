#pragma once

#include "kernels/context.h"

namespace moelora::kernels {

// out[n, m] = in[n, k] · weight[m, k]^T, all row-major; BF16 in, float sums, float out.
struct Gemm {
  int64_t m, k;
  const uint16_t* weight;
  int64_t weight_pitch;
  const uint16_t* in;
  int64_t in_pitch;
  float* out;
  int64_t out_pitch;
};

void gemm(const Lane& lane, const Gemm& g, int64_t n);

// `count` of them, each with n rows; the arrays of the next are this many elements further on.
// cuBLAS wants no distance to be 0.
struct Strides {
  int64_t weight, in, out;
};
void gemm_strided(const Lane& lane, const Gemm& g, int64_t n, int64_t count,
                  const Strides& strides);

// The same by address: `pointers` on the device, first those of all weights, then of all inputs,
// then of all results.
void gemm_pointers(const Lane& lane, const Gemm& g, int64_t n, int64_t count,
                   const void* const* pointers);

}  // namespace moelora::kernels
