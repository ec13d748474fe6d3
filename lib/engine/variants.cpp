#include "lib/engine/variants.h"

#include <array>

namespace moelora {
namespace {

constexpr std::array<Variant, 9> kVariants = {{
    {"alora_invocation_tokens", "activated LoRA", "0.18",
     "the delta is applied to every token, not only after the invocation", "", false},
    {"arrow_config", "Arrow routing", "0.18", "one of several routed adapters is served alone", "",
     false},
    {"kasa_config", "KaSA", "", "the diagonal and the truncated base weights are lost", "lora_diag",
     false},
    {"use_qalora", "QALoRA", "0.17", "lora_A expects pooled inputs, its shape fits no module", "",
     false},
    {"use_bdlora", "block-diagonal LoRA", "0.19.0",
     "factors are blocks, their shapes fit no module", "", false},
    {"velora_config", "VeLoRA", "0.20", "it compresses activations in training only", "lora_velora",
     true},
    {"monteclora_config", "MonteCLoRA", "0.20", "its noise belongs to training only",
     "lora_monteclora", true},
    {"layer_replication", "layer replication", "0.17",
     "the layers of the file are not those of the base model", "", false},
    {"trainable_token_indices", "trainable tokens", "0.17",
     "the trained rows of the embedding are lost", "trainable_tokens", false},
}};

}  // namespace

bool Variant::is_on(const Json& config) const {
  const Json* value = config.find(key);
  if (value == nullptr || value->is(Json::Kind::null)) return false;
  if (value->is(Json::Kind::boolean)) return value->as_bool();
  if (value->is(Json::Kind::array)) return !value->items().empty();
  return true;
}

std::span<const Variant> all_variants() { return kVariants; }

}  // namespace moelora
