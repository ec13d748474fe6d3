#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lib/base/progress.h"
#include "lib/base/tensor.h"
#include "lib/model/model_spec.h"
#include "lib/numeric/device.h"
#include "lib/numeric/moe_forward.h"

namespace moelora {

// What an implementation added to one projection of one expert with the factors of one adapter (the
// packed one), against what the factors of another (its source) give in double for the very same
// input: s B (A x), of gate and up from the implementation's x_p, of down from its h. The base
// weights count in neither, however the two adapters are factored.
//
// The bound, element by element, from the packed factors, with K the row's length, r the rank,
// u = 2^-23 (truncating tensor cores allowed for), U = 2^-8 and z = A x:
//   |s| |B| ((K u + c) |A| |x|) + (r u + U [s A x is BF16] + c) |s| |B| |z|
// c is the rounding of the packed factors' type (BF16 2^-8) where that type or the scale is not the
// source's, and 0 where they are the same; an F16's smallest steps are added. What is within the
// bound only because of c is the source's if the whole delta is off by at most kRoundedDelta.
struct DeltaError {
  Projection projection;
  int64_t expert;
  double worst;     // the largest |found - exact| / bound; at most kBeyond
  double relative;  // ||found - exact|| / ||exact||; 1 where the source adds nothing
  bool within;      // rounding explains it
};
inline constexpr double kRoundedDelta = 1e-2, kBeyond = 1e9;

// Both adapters over the same base; empty factors add nothing.
struct DeltaCheck {
  const MoeLayer& layer;
  const MoeWeights &packed, &source;
  const Routing& routing;
  StageRounding rounding;  // of the implementation; bf16: its factors too are BF16
  int threads = 0;
};

// Every expert that was chosen, by projection (gate, up, down), then expert. `found` with its
// deltas apart; projections without any LoRA are left out.
std::vector<DeltaError> check_deltas(const DeltaCheck& check, const MoeStages<float>& found);

// ---- both adapters, layer by layer ----

struct ForwardCheckOptions {
  FoundDevice where;  // open_device()
  int threads = 0;    // 0: all cores
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
  int64_t layers = 0, experts = 0, tokens = 0;  // tokens per layer
  int64_t deltas = 0;                           // compared: projections of experts
  double relative = 0, worst = 0;               // the largest of those within their bound
  std::vector<LayerDeltaError> differences;     // those that are not, by layer
};

// Layer by layer: tokens go through the layer as moe_layer.h says with the packed adapter's
// factors, in float on the chosen device, and what each projection of each expert added is held
// against the source's factors in double (check_deltas). Every expert is chosen equally often.
// Holds one layer at a time. Throws Error: weights that cannot be read, adapters that do not fit
// the layer, gate_up factors in an unknown order.
StageReport check_forward(const Adapter& packed, const Adapter& source, const MoeLayer& layer,
                          const ForwardBase& base, const ForwardCheckOptions& options);

}  // namespace moelora
