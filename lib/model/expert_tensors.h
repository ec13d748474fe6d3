#pragma once

#include <map>
#include <string>
#include <vector>

#include "lib/base/tensor.h"
#include "lib/model/model_spec.h"

namespace moelora {

// The routed experts of one layer, however the checkpoint stores them, as lazy tensors of one
// form: gate and up [E, I, in], down [E, in, I]; biases [E, rows]. `gate` is absent from both maps
// when experts are not gated, `biases` is empty without biases.
struct ExpertLayer {
  int layer = 0;
  bool numbered = false, mxfp4 = false;  // as they were found
  std::map<Projection, Tensor> weights, biases;
};

struct SplitExperts {
  std::vector<ExpertLayer> experts;  // by layer
  TensorMap rest;                    // every other tensor
};

// Takes the experts of all layers, layers behind the last one (multi-token prediction) included,
// out of a checkpoint, in whichever storage each layer has: the hub's, that of memory, MXFP4 blocks
// and scales of either, or per expert. Throws Error at `where`: an expert's tensor is missing, has
// another shape than the config says, or is there beside those that are understood (FP8 scales).
SplitExperts split_experts(const TensorMap& tensors, const ModelSpec& spec,
                           const std::string& where);

// The layer's tensors as `storage` names and orients them.
void add_experts(const ExpertLayer& experts, const ModelSpec& spec, const ExpertStorage& storage,
                 TensorMap& out);

}  // namespace moelora
