#pragma once

#include <algorithm>
#include <array>
#include <iterator>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "lib/adapter/adapter.h"
#include "lib/base/dotted_path.h"
#include "lib/model/model_spec.h"

namespace moelora {

inline constexpr std::string_view kPeftPrefix = "base_model.model.";

// A name without that in front, however often it stands there.
constexpr std::string_view without_peft_prefix(std::string_view name) {
  while (name.starts_with(kPeftPrefix)) name.remove_prefix(kPeftPrefix.size());
  return name;
}

// What a tensor of an adapter file is, by its last components.
enum class TensorPart : uint8_t {
  lora_a,
  lora_b,  // MODULE.lora_A.weight, also MODULE.lora_A and .lora_A.ADAPTER.weight
  embedding_a,
  embedding_b,  // MODULE.lora_embedding_A
  lora_bias,    // MODULE.lora_B.bias
  magnitude,    // MODULE.lora_magnitude_vector
  base_weight,  // MODULE.base_layer.weight
  other,        // a saved module's own tensor, or anything else
};

// A name without what training wraps modules in: "_orig_mod" (torch.compile), "module" (DDP,
// DeepSpeed), "_fsdp_wrapped_module" (FSDP) and "_checkpoint_wrapped_module" (activation
// checkpointing). None is ever part of a model; they may stand in front or inside.
std::string without_wrappers(std::string_view name);
// The first of them in a name, as people know it: "torch.compile"; "" for none.
std::string_view wrapper_in(std::string_view name);

// A tensor name taken apart, its wrappers left out:
// "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight" is module
// "model.layers.0.self_attn.q_proj", part lora_a. For `other`, module is the whole name without the
// PEFT prefix.
struct TensorName {
  std::string module;
  TensorPart part;
};
TensorName parse_tensor_name(std::string_view name);

// The same as a part of the name. REQUIRES: no wrapper in it.
struct TensorNameView {
  std::string_view module;
  TensorPart part;
};
TensorNameView view_tensor_name(std::string_view name);

// "base_model.model.MODULE.lora_A.weight".
std::string lora_name(std::string_view module, Side side);

// The place of an expert tensor: "model.layers.3.mlp.experts.7.gate_proj" is stem
// "model.layers.{layer}.mlp.experts", layer 3, rest "7.gate_proj", whatever the layout. The rest is
// empty for PEFT's outermost parameter. nullopt for a module that is not under routed experts, and
// for an expert's that is a Linear of its own in every form (nllb-moe's experts.expert_3.fc1): its
// pair is read like that of any other Linear.
struct ExpertPath {
  enum class Form : uint8_t {
    numbered,  // 7.gate_proj, 7.w1, 7.gate_up_proj: one expert
    plural,    // gate_up_projs.7: one expert, Unsloth's linearized gpt-oss
    named,     // gate_proj, w1, gate_up_proj: all experts in one tensor
    // "", base_layer; DBRX's "mlp", mlp.base_layer: PEFT's target_parameters, which name no
    // projection
    parameters,
    unknown,  // anything else
  };
  std::string stem;
  int layer = 0;
  std::string rest;
  Form form = Form::unknown;
  std::optional<int64_t> expert = {};         // of numbered and plural
  std::optional<Projection> projection = {};  // of numbered, plural and named
  int nesting = 0;                            // of parameters: how many ".base_layer"
};
std::optional<ExpertPath> parse_expert_path(std::string_view module);

// Where the number of an expert that is a Linear of its own stands: "3" of
// "ffn.experts.expert_3.fc1", with or without what comes before "experts".
struct NumberPlace {
  size_t begin, end;
};
std::optional<NumberPlace> find_linear_expert(std::string_view module);

// Whether a module holds PEFT's stacks of experts in two dims, A [E*r, in] and B [out, r*E], which
// do not tell the rank.
bool is_expert_parameter(std::string_view module);

// How many ".base_layer" a name below the stem has: 0 of "", 2 of "base_layer.base_layer", nullopt
// of anything else.
std::optional<int> nesting(std::string_view rest);

// The part of an expert tensor's name below the stem, with holes: "{expert}.{proj}", "{proj}". One
// object both parses and prints, so that reader and writer cannot disagree. `words` lists how
// {proj} may be written; printing takes the first of a projection.
class NamePattern {
 public:
  struct Word {
    Projection projection;
    std::string_view text;
  };
  struct At {
    std::optional<int64_t> expert;
    Projection projection;
  };

  constexpr NamePattern(std::string_view pattern, std::span<const Word> words)
      : pattern_(pattern), words_(words) {}

  std::optional<At> match(std::string_view rest) const;
  std::string format(int64_t expert, std::string_view word) const;
  std::string_view word(Projection projection) const;  // the first

 private:
  std::string_view pattern_;
  std::span<const Word> words_;
};

// How files spell the projections of experts, gate and up apart; joined; joined under the plural
// names of Unsloth's linearized gpt-oss; and apart with a Linear for each expert, where Grok-1's
// conversions for transformers (schemas/models/grok1.json) have words of their own.
inline constexpr NamePattern::Word kApartWords[] = {
    {Projection::gate, "gate_proj"}, {Projection::up, "up_proj"}, {Projection::down, "down_proj"},
    {Projection::gate, "w1"},        {Projection::up, "w3"},      {Projection::down, "w2"}};
inline constexpr NamePattern::Word kJoinedWords[] = {{Projection::gate_up, "gate_up_proj"},
                                                     {Projection::down, "down_proj"}};
inline constexpr NamePattern::Word kPluralWords[] = {{Projection::gate_up, "gate_up_projs"},
                                                     {Projection::down, "down_projs"}};
inline constexpr auto kNumberedWords = [] {
  constexpr NamePattern::Word kGrok[] = {
      {Projection::gate, "linear"}, {Projection::up, "linear_v"}, {Projection::down, "linear_1"}};
  std::array<NamePattern::Word, std::size(kApartWords) + std::size(kGrok)> out = {};
  std::copy(std::begin(kGrok), std::end(kGrok),
            std::copy(std::begin(kApartWords), std::end(kApartWords), out.begin()));
  return out;
}();

}  // namespace moelora
