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

// Where below "...experts" a factor stands, whatever its layout.
struct ExpertPlace {
  enum class Form : uint8_t {
    numbered,    // 7.gate_proj, 7.w1, 7.gate_up_proj: one expert
    plural,      // gate_up_projs.7: one expert, Unsloth's linearised gpt-oss
    named,       // gate_proj, w1, gate_up_proj: all experts in one tensor
    parameters,  // "", base_layer: PEFT's target_parameters, which name no projection
    unknown,     // anything else
  };
  Form form = Form::unknown;
  int layer = 0;
  std::optional<int64_t> expert;         // of numbered and plural
  std::optional<Projection> projection;  // of numbered, plural and named
  int nesting = 0;                       // of parameters: how many ".base_layer"
};

struct NamedTensor {
  std::string name;    // as in the file
  std::string module;  // without "base_model.model."
  TensorPart part;
  DType dtype;
  Shape shape;
  std::optional<ExpertPlace> expert;  // of a routed-expert factor
  int expert_tensor = -1;             // then: its index in Subject::experts
  int linear = -1;                    // index in ModelSpec::linears of the module, -1 for none
  int layer = -1;                     // N of the first "layers.N." in the name

  bool is_factor() const { return part <= TensorPart::embedding_b; }
  bool is_a() const { return part == TensorPart::lora_a || part == TensorPart::embedding_a; }
  int64_t elements() const;
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
  const NamedTensor& any(const FactorPair& pair) const {
    return tensors[static_cast<size_t>(pair.any())];
  }
};

// `experts`: expert_tensors(tensors); `spec` is null without a base model.
AdapterParts take_apart(const TensorMap& tensors, std::span<const ExpertTensor> experts,
                        const ModelSpec* spec);

ExpertPlace parse_expert_place(const ExpertPath& path);

// "model.layers.{n}.mlp.experts.{n}.gate_proj": components that are numbers, replaced. What many
// names have in common.
std::string without_numbers(std::string_view name);

}  // namespace moelora
