#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

#include "lib/adapter/stacked_pairs.h"

namespace moelora {

// LoRA of the experts' biases (gpt-oss, target_parameters "gate_up_proj_bias"), each [E, out]: A
// [r, out], B [E, r]. PEFT nests it among the pairs of its module, behind the parameter that it is
// the bias of. No server takes it; an Adapter keeps it in `extras` under the parameter's own name:
// "model.layers.0.mlp.experts.gate_up_proj_bias.lora_A.weight".

// Takes them out of the pairs of a file: where the base has such biases and target_parameters names
// as many parameters of a module as the file has pairs. Throws Error for sizes that are not the
// base's. The names are of `extras`.
std::map<std::string, const ExpertTensor*> take_expert_biases(std::vector<StackedPair>& pairs,
                                                              const ReadContext& context);

bool is_expert_bias(std::string_view extra);

// Names in `extras`, by the layer and the projection that the bias is of.
struct ExpertBias {
  std::string a, b, path;  // path: "model.layers.0.mlp.experts.gate_up_proj_bias"
};
std::map<ExpertKey, ExpertBias> expert_biases(const Adapter& adapter, const ModelSpec* spec);

}  // namespace moelora
