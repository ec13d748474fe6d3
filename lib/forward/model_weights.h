#pragma once

#include <map>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "lib/forward/model_lora.h"
#include "lib/io/weights.h"
#include "lib/model/base_model.h"
#include "lib/numeric/moe_layer.h"

namespace moelora {

// scale * (B A x + bias).
struct LoraTerm {
  Tensor a, b;  // [r, in], [out, r]
  double scale = 1;
  std::optional<Tensor> bias = {};  // lora_B.bias [out]
};

// y = W x + b with LoRA. With DoRA's magnitude each row of W + scale B A is first brought to that
// norm; the bias is not (PEFT's DoraLinearLayer).
struct LinearWeights {
  std::string name;                 // for messages
  Tensor weight;                    // [out, in]
  std::optional<Tensor> bias = {};  // [out]
  std::optional<LoraTerm> lora = {};
  std::optional<Tensor> magnitude = {};  // [out]
};

// A base model's weights with an adapter on them, none of them read yet, by the paths of its
// family's file: "model.layers.0.self_attn.q_proj". What is FP8 in blocks is decoded, exactly.
class ModelWeights {
 public:
  // Opens the checkpoint. Throws Error where the base has no weights at hand, and for whatever the
  // adapter holds that has no place in it, by name. Refers to `base`.
  ModelWeights(const BaseModel& base, const ModelLora& lora);

  // A tensor without LoRA: a norm's weight, sinks. A saved module of the adapter comes before the
  // checkpoint's. Throws Error when it is missing or of another shape.
  Tensor parameter(const std::string& name, const Shape& shape) const;
  Tensor vector(const std::string& name, int64_t count) const;  // [n], of any shape of n elements
  std::optional<Tensor> find(const std::string& name) const;

  // Throws Error when the model has no such Linear, or the checkpoint lacks its weight.
  LinearWeights linear(const std::string& module) const;
  const LinearSpec* find_linear(const std::string& module) const;

  uint64_t bytes() const;  // of all tensors of the checkpoint
  const ModelSpec& spec() const { return base_.spec; }
  // Throws Error for a pair that nothing above has asked for: the forward does not compute with it.
  void refuse_unread() const;

  std::string layer_path(int layer) const;  // "model.layers.3"

  // The routed experts of a layer.
  MoeWeights experts(int layer) const;

  Tensor embedding() const;                        // [vocab, hidden]
  std::optional<LoraTerm> embedding_lora() const;  // a [r, vocab], b [hidden, r]
  LinearWeights head() const;                      // lm_head, or the embedding where both are one

 private:
  using ByModule = std::map<std::string, Tensor>;  // by LinearSpec::memory

  void take_delta(const DeltaKey& key, const Delta& delta);
  void take_expert(const DeltaKey& key, const Delta& delta);
  void take_extra(const std::string& name, const Extra& extra);
  void refuse_unused() const;
  Tensor required_tensor(const std::string& name) const;
  std::optional<Tensor> stored(const std::string& hub, const std::string& memory) const;
  std::optional<Tensor> weight_of(const LinearSpec& linear) const;
  LinearWeights with_adapter(const LinearSpec& linear, Tensor weight) const;
  const LinearSpec& required(std::string_view module, const std::string& name) const;

  const BaseModel& base_;
  std::string where_;
  Weights files_;
  std::map<std::string, LoraTerm> lora_;  // by LinearSpec::memory
  mutable std::set<std::string> read_;    // of these, by linear(), head() and embedding_lora()
  std::map<int, LayerLora> expert_lora_;  // by layer
  ByModule magnitudes_, lora_biases_;
  TensorMap saved_;  // by name in memory
};

}  // namespace moelora
