#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/adapter/layout.h"
#include "lib/adapter/tensor_name.h"

namespace moelora {

// The names of an adapter taken apart once, for all rules. Everything is by value or by index, so
// that a Subject can be copied.

struct NamedTensor {
  std::string name;    // as in the file
  std::string module;  // without "base_model.model."
  TensorPart part;
  DType dtype;
  Shape shape;
  std::optional<ExpertPath> expert;  // of a routed-expert factor
  int linear = -1;                   // index in ModelSpec::linears of the module, -1 for none
  int layer = -1;                    // N of the first "layers.N." in the name

  bool is_factor() const { return part <= TensorPart::embedding_b; }
  bool is_a() const { return part == TensorPart::lora_a || part == TensorPart::embedding_a; }
  bool is_numbered_expert() const {  // of one expert, named by its number
    return expert && expert->form == ExpertPath::Form::numbered;
  }
  // Of all experts in one tensor, named by its projection: [E, ..].
  bool is_named_experts() const { return expert && expert->form == ExpertPath::Form::named; }
  int64_t elements() const;
  std::string experts_path() const;  // "model.layers.3.mlp.experts". REQUIRES `expert`
};

// lora_A and lora_B (or lora_embedding_A and _B) of one module.
struct FactorPair {
  int a = -1, b = -1;  // indices in AdapterParts::tensors; -1: not there
  int any() const { return a >= 0 ? a : b; }
};

struct AdapterParts {
  std::vector<NamedTensor> tensors;  // in the order of their names
  std::vector<FactorPair> pairs;     // in the order of their first tensor

  const NamedTensor* a(const FactorPair& pair) const;  // null when not there
  const NamedTensor* b(const FactorPair& pair) const;
  const NamedTensor* find(std::string_view name) const;  // null for none
  bool has_numbered_experts() const;
  const NamedTensor& any(const FactorPair& pair) const {
    return tensors[static_cast<size_t>(pair.any())];
  }
};

// `experts`: expert_tensors(tensors); `spec` is null without a base model.
AdapterParts take_apart(const TensorMap& tensors, std::span<const ExpertTensor> experts,
                        const ModelSpec* spec);

// "model.layers.{n}.mlp.experts.{n}.gate_proj": components that are numbers, replaced. What many
// names have in common.
std::string without_numbers(std::string_view name);

}  // namespace moelora
