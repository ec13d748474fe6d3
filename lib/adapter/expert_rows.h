#pragma once

#include <span>
#include <utility>

#include "lib/adapter/layout.h"

namespace moelora {

// PEFT's target_parameters on experts that are rows of one matrix (ExpertAxes::rows, DBRX). To
// ParamWrapper a parameter of two dims [E*I, H] is the weight of one Linear: one pair, A [r, H] and
// B [E*I, r], whatever the number of experts (PEFT 0.17 to 0.21, tuners/lora/layer.py). With B_e
// the I rows of B that are an expert's, delta W_e of gate and of up is B_e A; down is stored
// transposed, so that its delta is (B_e A)^T = A^T B_e^T. In both one outer factor serves all
// experts: the form of shared-outer, with no value changed.

// Whether a tensor's name is of such a parameter: "experts.mlp" or "experts.mlp.base_layer".
bool is_row_parameter(const ExpertTensor& tensor);

// Fills `adapter` with what the tensors mean. Throws Error: no base model says how many experts
// there are, or its experts are not rows; a layer's pairs are fewer than its parameters, and
// target_parameters does not say which; shapes are not the base model's.
void read_expert_rows(std::span<const ExpertTensor> tensors, const ReadContext& context,
                      Adapter& adapter);

// lora_A and lora_B of one parameter. Throws Error where experts have outer factors of their own.
// REQUIRES: a spec whose experts are rows.
std::pair<Tensor, Tensor> expert_rows(const ExpertKey& key, const ExpertPair& pair,
                                      const ModelSpec& spec);

}  // namespace moelora
