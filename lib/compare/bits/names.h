#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

#include "lib/model/model_spec.h"

namespace moelora::packed {

// Names of adapter tensors, read for the packed check alone: nothing in this folder comes from
// lib/adapter, so that no mistake of a reader or writer there can be made here a second time
// (tests/layering_test.cmake).

enum class Side : uint8_t { A, B };
char letter(Side side);

// A low-rank factor by its name. "base_model.model.model.layers.3.mlp.experts.7.w1.lora_A.weight":
// module "model.layers.3.mlp.experts.7.w1", side A, and because it lies under routed experts layer
// 3, stem "model.layers.3.mlp.experts", rest "7.w1".
struct FactorName {
  std::string_view module;
  Side side = Side::A;
  bool embedding = false;  // lora_embedding_A [r, V] and lora_embedding_B [H, r]
  bool expert = false;
  int layer = -1;
  std::string_view stem, rest;  // of an expert's
};

// The views point into `name`. nullopt: no factor.
std::optional<FactorName> parse_factor_name(std::string_view name);

// `name` without "base_model.model." in front, however often.
std::string_view without_prefix(std::string_view name);

// What the part below "experts" says: "7.gate_proj", "w1", "gate_up_projs.7", "base_layer", "".
struct ExpertRest {
  enum class Form : uint8_t {
    numbered,   // {e}.{word}
    plural,     // {words}.{e}: gate and up rows interleaved
    all,        // {word}: a 3-D tensor of all experts
    parameter,  // "" or base_layer[.base_layer ..]: PEFT's stacked pair
  };
  Form form;
  Projection projection = Projection::down;
  int64_t expert = -1;  // of numbered and plural
  int nesting = 0;      // of parameter
  bool w_word = false;  // spelled w1, w3 or w2
};
std::optional<ExpertRest> parse_expert_rest(std::string_view rest);

}  // namespace moelora::packed
