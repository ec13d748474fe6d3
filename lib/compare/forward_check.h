#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lib/base/progress.h"
#include "lib/base/tensor.h"
#include "lib/compare/delta_check.h"
#include "lib/model/model_spec.h"
#include "lib/numeric/device.h"

namespace moelora {

struct ForwardCheckOptions {
  FoundDevice where;             // open_device()
  int threads = 0;               // 0: all cores
  int64_t pairs_per_expert = 4;  // tokens that each expert gets
  uint64_t seed = 0;             // of tokens, and of a base that stands in
  JobControl job;
};

// Base weights at hand. Without them the same random matrices stand in for every expert and layer:
// the delta is compared from the input each projection really had, so that they only have to make
// that input a likely one.
struct ForwardBase {
  const TensorMap* tensors = nullptr;  // null: none
  const ModelSpec* spec = nullptr;
  std::string where;
};

struct LayerDeltaError : DeltaError {
  int layer;
};

// What check_forward() did and found.
struct StageReport {
  std::string device;   // "CPU, float", "NVIDIA H200, 139.8 GiB, ... (cuBLAS, expert by expert ..)"
  std::string why_cpu;  // why no card, where one would have been taken; "" otherwise
  std::string base;     // "MXFP4 of models/gpt-oss-20b", "synthetic, seed 0"
  int64_t layers = 0, experts = 0, tokens = 0;  // tokens a layer
  int64_t deltas = 0;                           // compared: projections of experts
  double relative = 0, worst = 0;               // the largest of those within their bound
  std::vector<LayerDeltaError> differences;     // those that are not, by layer
};

// Layer by layer: tokens go through the layer as moe_forward.h says with the packed adapter's
// factors, in float on the chosen device, and what each projection of each expert added is held
// against the source's factors in double (delta_check.h). Every expert is chosen equally often.
// Holds one layer at a time. Throws Error: weights that cannot be read, adapters that do not fit
// the layer, gate_up factors in an unknown order.
StageReport check_forward(const Adapter& packed, const Adapter& source, const MoeLayer& layer,
                          const ForwardBase& base, const ForwardCheckOptions& options);

// The layer that an adapter's factors fit, where no base model says what it is: SwiGLU, gated if
// gate is adapted. Throws Error without experts, or where only sizes of one side are known.
MoeLayer layer_of(const Adapter& adapter);

}  // namespace moelora
