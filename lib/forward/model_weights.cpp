#include "lib/forward/model_weights.h"

#include <fmt/format.h>

#include "lib/adapter/tensor_name.h"
#include "lib/model/forward_facts.h"
#include "lib/numeric/base_weights.h"

namespace moelora {
namespace {

std::string weights_folder(const BaseModel& base) {
  const std::string& folder = base.values_folder();
  if (!folder.empty()) return folder;
  throw Error(base.origin, "has no weights beside it, and the forward computes with them",
              {Option::base, " must name a model folder with its weights"});
}

void check_shape(const Tensor& tensor, const Shape& shape, const std::string& where,
                 const std::string& name) {
  if (tensor.shape() == shape) return;
  throw Error(where + ": " + name, fmt::format("has shape {}, the config says {}",
                                               to_string(tensor.shape()), to_string(shape)));
}

std::optional<Projection> projection_of(std::string_view name) {
  for (const Projection p : {Projection::gate, Projection::up, Projection::down})
    if (name == projection_name(p)) return p;
  return std::nullopt;
}

std::optional<Tensor> found_in(const std::map<std::string, Tensor>& tensors,
                               const std::string& name) {
  const auto found = tensors.find(name);
  return found == tensors.end() ? std::nullopt : std::optional<Tensor>(found->second);
}

}  // namespace

ModelWeights::ModelWeights(const BaseModel& base, const ModelLora& lora)
    : base_(base),
      where_(weights_folder(base)),
      files_(open_weights(where_, {"model"}, {false, base.links})) {
  for (const auto& [key, delta] : lora.deltas) take_delta(key, delta);
  for (const auto& [name, extra] : lora.extras) take_extra(name, extra);
  refuse_unused();
}

void ModelWeights::take_delta(const DeltaKey& key, const Delta& delta) {
  if (key.expert >= 0) return take_expert(key, delta);
  lora_[required(key.module, key.module).memory] = {delta.a, delta.b, delta.scale};
}

void ModelWeights::take_expert(const DeltaKey& key, const Delta& delta) {
  const auto experts = static_cast<size_t>(base_.spec.experts);
  const auto projection = projection_of(key.module);
  if (!projection || !base_.spec.is_moe(key.layer) || static_cast<size_t>(key.expert) >= experts)
    throw Error(to_string(key), fmt::format("has no place in {}", base_.origin), check_base());
  ExpertPair& pair = expert_lora_[key.layer][*projection];
  for (Factor* factor : {&pair.a, &pair.b}) factor->parts.resize(experts);
  pair.scaling.resize(experts);
  const auto at = static_cast<size_t>(key.expert);
  pair.a.parts[at] = delta.a;
  pair.b.parts[at] = delta.b;
  pair.scaling[at] = Scaling::plain(delta.a.dim(0), delta.scale);
}

const LinearSpec& ModelWeights::required(std::string_view module, const std::string& name) const {
  if (const LinearSpec* found = base_.spec.find_linear(base_.spec.normalised(std::string(module))))
    return *found;
  throw Error(name, fmt::format("has no place in {}: it has no module {}", base_.origin, module),
              check_base());
}

void ModelWeights::take_extra(const std::string& name, const Extra& extra) {
  const TensorName parsed = parse_tensor_name(name);
  switch (extra.kind) {
    case ExtraKind::embedding_factor:  // a delta
      return;
    case ExtraKind::base_weight: {
      saved_[required(parsed.module, name).memory + ".weight"] = extra.tensor;
      return;
    }
    case ExtraKind::saved_module: {
      saved_[base_.spec.normalised(name)] = extra.tensor;
      return;
    }
    case ExtraKind::lora_bias: {
      lora_biases_[required(parsed.module, name).memory] = extra.tensor;
      return;
    }
    case ExtraKind::magnitude: {
      magnitudes_[required(parsed.module, name).memory] = extra.tensor;
      return;
    }
    case ExtraKind::other:
      break;
  }
  throw Error(name,
              "is no factor and no saved module that the config names: what it does is not "
              "known, so what the model computes with it cannot be told");
}

// A saved module whose name no part of the model asks for would be left out without a word.
void ModelWeights::refuse_unused() const {
  for (const auto& [name, tensor] : saved_)
    if (!stored(name, name) && !name.ends_with("lm_head.weight"))
      throw Error(name, fmt::format("replaces a tensor that {} does not have", where_),
                  check_base());
  for (const ByModule* extras : {&magnitudes_, &lora_biases_})
    for (const auto& [module, tensor] : *extras)
      if (lora_.count(module) == 0)
        throw Error(module, "has DoRA's magnitude or a LoRA bias, and no lora_A and lora_B");
}

std::optional<Tensor> ModelWeights::stored(const std::string& hub,
                                           const std::string& memory) const {
  if (auto found = found_in(files_.tensors, hub)) return found;
  return found_in(files_.tensors, memory);
}

std::optional<Tensor> ModelWeights::find(const std::string& name) const {
  const ForwardFacts& facts = *base_.spec.forward;
  const std::string memory = facts.memory_path(name);
  if (auto own = found_in(saved_, memory)) return own;
  return stored(facts.hub_path(name), memory);
}

Tensor ModelWeights::required_tensor(const std::string& name) const {
  if (auto found = find(name)) return *std::move(found);
  throw Error(where_, fmt::format("the tensor {} is missing", name),
              "check that all shards of the checkpoint are there");
}

Tensor ModelWeights::parameter(const std::string& name, const Shape& shape) const {
  Tensor found = required_tensor(name);
  check_shape(found, shape, where_, name);
  return found;
}

Tensor ModelWeights::vector(const std::string& name, int64_t count) const {
  const Tensor found = required_tensor(name);
  if (found.elements() != count) check_shape(found, {count}, where_, name);
  return found.reshape({count});
}

const LinearSpec* ModelWeights::find_linear(const std::string& module) const {
  const ForwardFacts& facts = *base_.spec.forward;
  const LinearSpec* hub = base_.spec.find_linear(facts.hub_path(module));
  return hub != nullptr ? hub : base_.spec.find_linear(facts.memory_path(module));
}

std::optional<Tensor> ModelWeights::weight_of(const LinearSpec& linear) const {
  if (auto own = found_in(saved_, linear.memory + ".weight")) return own;
  auto weight = stored(linear.hub + ".weight", linear.memory + ".weight");
  const auto scale = stored(linear.hub + ".weight_scale_inv", linear.memory + ".weight_scale_inv");
  if (!weight || !scale) return weight;
  return block_fp8_tensor(*weight, *scale, where_ + ": " + linear.hub);
}

LinearWeights ModelWeights::with_adapter(const LinearSpec& linear, Tensor weight) const {
  check_shape(weight, {linear.out, linear.in}, where_, linear.hub + ".weight");
  LinearWeights out{linear.hub, std::move(weight)};
  if (linear.bias) {
    out.bias = found_in(saved_, linear.memory + ".bias");
    if (!out.bias) out.bias = stored(linear.hub + ".bias", linear.memory + ".bias");
    if (!out.bias) throw Error(where_, fmt::format("the tensor {}.bias is missing", linear.hub));
    check_shape(*out.bias, {linear.out}, where_, linear.hub + ".bias");
  }
  if (const auto lora = lora_.find(linear.memory); lora != lora_.end()) {
    read_.insert(linear.memory);
    out.lora = lora->second;
    out.lora->bias = found_in(lora_biases_, linear.memory);
  }
  out.magnitude = found_in(magnitudes_, linear.memory);
  return out;
}

LinearWeights ModelWeights::linear(const std::string& module) const {
  const LinearSpec* linear = find_linear(module);
  if (linear == nullptr)
    throw Error(base_.spec.family_file, fmt::format("describes no module {}", module));
  auto weight = weight_of(*linear);
  if (!weight)
    throw Error(where_, fmt::format("the tensor {}.weight is missing", linear->hub),
                "check that all shards of the checkpoint are there");
  return with_adapter(*linear, *std::move(weight));
}

void ModelWeights::refuse_unread() const {
  for (const auto& [module, lora] : lora_)
    if (read_.count(module) == 0)
      throw Error(module, "is adapted, and this forward does not compute with LoRA on it");
}

uint64_t ModelWeights::bytes() const {
  uint64_t out = 0;
  for (const auto& [name, tensor] : files_.tensors) out += tensor.bytes();
  return out;
}

std::string ModelWeights::layer_path(int layer) const {
  return with_layer(base_.spec.forward->layer, layer);
}

MoeWeights ModelWeights::experts(int layer) const {
  const auto lora = expert_lora_.find(layer);
  return {read_base_weights(files_.tensors, base_.spec, layer, where_),
          lora == expert_lora_.end() ? LayerLora{} : lora->second};
}

Tensor ModelWeights::embedding() const {
  return parameter(base_.spec.forward->embedding + ".weight",
                   {base_.spec.vocab, base_.spec.hidden});
}

std::optional<LoraTerm> ModelWeights::embedding_lora() const {
  const ForwardFacts& facts = *base_.spec.forward;
  const auto found = lora_.find(facts.memory_path(facts.embedding));
  if (found == lora_.end()) return std::nullopt;
  if (magnitudes_.count(found->first) != 0 || lora_biases_.count(found->first) != 0)
    throw Error(found->first,
                "has DoRA's magnitude or a LoRA bias, which this forward does not "
                "compute on an embedding");
  read_.insert(found->first);
  return found->second;
}

// PEFT adapts lm_head alone where a name targets it, though its weight is the embedding's: an
// embedding that the adapter replaced is not the head's.
LinearWeights ModelWeights::head() const {
  const ForwardFacts& facts = *base_.spec.forward;
  const LinearSpec* head = facts.lm_head.empty() ? nullptr : find_linear(facts.lm_head);
  if (head == nullptr)
    throw Error(base_.origin, "is of a class without lm_head, which gives no log-probabilities");
  auto weight = weight_of(*head);
  const std::string embedding = facts.embedding + ".weight";
  if (!weight && base_.spec.tied_embeddings)
    weight = stored(facts.hub_path(embedding), facts.memory_path(embedding));
  if (!weight)
    throw Error(where_, fmt::format("the tensor {}.weight is missing, and the config does not tie "
                                    "it to the embedding",
                                    head->hub));
  return with_adapter(*head, *std::move(weight));
}

}  // namespace moelora
