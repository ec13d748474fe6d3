#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <cstring>

#include "kernels/moe_lora.h"

namespace moelora::kernels {

__device__ inline float from_bf16(uint16_t bits) {
  const uint32_t wide = static_cast<uint32_t>(bits) << 16;
  float out;
  memcpy(&out, &wide, 4);
  return out;
}

// To nearest, ties to even; a NaN stays one.
__device__ inline uint16_t to_bf16(float value) {
  uint32_t wide;
  memcpy(&wide, &value, 4);
  if ((wide & 0x7FFFFFFFu) > 0x7F800000u) return static_cast<uint16_t>((wide >> 16) | 0x40u);
  return static_cast<uint16_t>((wide + 0x7FFFu + ((wide >> 16) & 1u)) >> 16);
}

struct ActivationOf {
  Activation kind;
  bool gated;
  float alpha, limit;
};

// h of one neuron; lib/numeric/moe_forward.h says what it is.
__device__ inline float activated(const ActivationOf& f, float gate, float up) {
  if (f.gated && gate > f.limit) gate = f.limit;
  if (f.gated && up > f.limit) up = f.limit;
  if (f.gated && up < -f.limit) up = -f.limit;
  const float g = f.gated ? gate : up, u = f.gated ? up : 1.0f;
  switch (f.kind) {
    case Activation::silu:
      return g / (1.0f + expf(-g)) * u;
    case Activation::gelu:
      return g * 0.5f * (1.0f + erff(g * 0.70710678118f)) * u;
    case Activation::gelu_tanh:
      return g * 0.5f * (1.0f + tanhf(0.79788456080f * (g + 0.044715f * g * g * g))) * u;
    case Activation::relu2:
      return g > 0 || g != g ? g * g * u : 0.0f;
    case Activation::gpt_oss_swiglu:
      break;
  }
  return g / (1.0f + expf(-f.alpha * g)) * (u + 1.0f);
}

}  // namespace moelora::kernels
