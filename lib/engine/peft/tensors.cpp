#include "lib/engine/peft/tensors.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <map>
#include <tuple>

#include "lib/adapter/tensor_name.h"

namespace moelora::peft {
namespace {

constexpr std::string_view kConvert = "transformers/core_model_loading.py convert";
constexpr std::string_view kDefault = "default";

// A name taken apart at PEFT's own part: "MODULE" and "lora_A.default.weight".
struct Parts {
  std::string module, tail;
};

std::optional<Parts> parts_of(const std::string& name) {
  const size_t at = name.rfind(".lora_");
  if (at == std::string::npos) return std::nullopt;
  return Parts{name.substr(0, at), name.substr(at + 1)};
}

// A joined tensor: of which layer, whether down, which side.
struct JoinedKey {
  int layer;
  bool down;
  bool b;
  friend auto operator<=>(const JoinedKey&, const JoinedKey&) = default;
};

struct Member {
  int64_t expert;
  const TensorHeader* tensor;
};
struct Join {
  std::vector<Member> gate, up, down;
};

class Renaming {
 public:
  Renaming(const Host& host, const std::vector<std::string>& saved) : host_(host), saved_(saved) {}

  Renamed run(const std::vector<TensorHeader>& tensors) {
    for (const TensorHeader& tensor : tensors)
      if (!host_.rewrites_names() || !join(tensor)) rename(tensor);
    for (const auto& [key, group] : joins_)
      if (!out_.refusal) finish(key, group);
    return std::move(out_);
  }

 private:
  // Below the prefix, which only PEFT that rewrites names does without.
  std::optional<std::string> below_prefix(const std::string& name) const {
    if (name.starts_with(kPeftPrefix)) return name.substr(kPeftPrefix.size());
    if (host_.rewrites_names()) return name;
    return std::nullopt;
  }

  std::string module_today(const std::string& module) const {
    if (!host_.rewrites_names()) return module;
    const LinearSpec* linear = host_.spec.find_linear(module);
    return linear != nullptr && module == linear->hub ? linear->memory : module;
  }

  // "lora_A.weight" gets the adapter's name, as _insert_adapter_name_into_state_dict() puts it.
  std::string with_adapter(const std::string& tail) const {
    const size_t dot = tail.find('.');
    if (dot == std::string::npos)
      return tail + (tail == "lora_magnitude_vector" ? ".default.weight" : ".default");
    const std::string part = tail.substr(0, dot), rest = tail.substr(dot + 1);
    const bool named = rest == kDefault || rest.starts_with("default.");
    if (named && (host_.has("0.21") || (host_.has("0.20") && host_.rewrites_names()))) return tail;
    return part + ".default." + rest;
  }

  std::string key_of(const std::string& name) const {
    if (const auto parts = parts_of(name))
      return module_today(parts->module) + "." + with_adapter(parts->tail);
    const size_t dot = name.rfind('.');
    if (dot == std::string::npos) return name;
    const std::string module = module_today(name.substr(0, dot));
    const bool saved = std::find(saved_.begin(), saved_.end(), module) != saved_.end();
    return module + (saved ? ".modules_to_save.default" : "") + name.substr(dot);
  }

  void rename(const TensorHeader& tensor) {
    const auto below = below_prefix(tensor.name);
    out_.incoming.push_back({below ? key_of(*below) : tensor.name, tensor.shape, {tensor.name}});
  }

  // transformers searches for "lora_A.*", a regular expression: whatever follows is read too (PEFT
  // 0.21.2, run: "lora_A", "lora_A.name.weight", "lora_A_name.weight").
  // Whether this is one of the numbered experts' tensors that are joined.
  bool join(const TensorHeader& tensor) {
    const ExpertStorage& hub = host_.spec.hub;
    const auto below = below_prefix(tensor.name);
    const auto parts = below ? parts_of(*below) : std::nullopt;
    if (!hub.numbered || !parts) return false;
    const bool a = parts->tail.starts_with("lora_A"), b = parts->tail.starts_with("lora_B");
    auto [layer, rest] = split_stem(parts->module, hub.stem);
    if (layer < 0) std::tie(layer, rest) = split_stem(parts->module, host_.spec.memory.stem);
    const size_t dot = rest.find('.');
    if (layer < 0 || dot == std::string::npos || (!a && !b)) return false;
    const auto expert = parse_index(rest.substr(0, dot));
    const std::string word = rest.substr(dot + 1);
    if (!expert) return false;
    const bool down = word == hub.down, gate = word == hub.gate;
    if (!down && !gate && (word != hub.up || hub.gate.empty())) return false;
    Join& group = joins_[{layer, down, b}];
    (down ? group.down : gate ? group.gate : group.up).push_back({*expert, &tensor});
    return true;
  }

  void refuse(std::string type, std::string text, const Join& group) {
    out_.refusal = Refusal{std::string(kConvert), std::move(type), std::move(text)};
    for (const auto* members : {&group.gate, &group.up, &group.down})
      for (const Member& member : *members) out_.refused.push_back(member.tensor->name);
    std::sort(out_.refused.begin(), out_.refused.end());
  }

  // The pattern that transformers maps: "mlp.experts.*.gate_proj.lora_A.*".
  std::string pattern(const JoinedKey& key) const {
    const ModelSpec& spec = host_.spec;
    const std::string stem = spec.memory.stem.substr(layer_stem(spec).size() + 1);
    const bool mixtral = spec.peft.converts && spec.hub.gate == "w1";
    return fmt::format("{}.*.{}.lora_{}.*", mixtral ? ".experts" : stem, spec.hub.gate,
                       key.b ? "B" : "A");
  }

  bool is_even(const Join& group) {
    for (const auto* members : {&group.gate, &group.up, &group.down})
      for (const Member& member : *members) {
        const TensorHeader& first = *members->front().tensor;
        if (member.tensor->shape == first.shape) continue;
        refuse("RuntimeError",
               fmt::format("stack expects each tensor to be equal size, but got {} at entry 0 and "
                           "{} at entry {}",
                           to_string(first.shape), to_string(member.tensor->shape),
                           &member - members->data()),
               group);
        return false;
      }
    return true;
  }

  void finish(const JoinedKey& key, const Join& group) {
    if (!key.down && group.gate.empty() != group.up.empty()) {
      if (host_.has("0.20"))
        return refuse("ValueError", "torch.cat(): expected a non-empty list of Tensors", group);
      return refuse("KeyError", "'" + pattern(key) + "'", group);
    }
    if (!is_even(group)) return;
    if (group.gate.size() != group.up.size())
      return refuse("RuntimeError", "Sizes of tensors must match except in dimension 1", group);
    Incoming joined;
    joined.joined = true;
    joined.key =
        fmt::format("{}{}.lora_{}.default.weight", host_.spec.expert_stem(Form::memory, key.layer),
                    key.down ? "" : ".base_layer", key.b ? "B" : "A");
    joined.shape = joined_shape(key, group);
    for (const auto* members : {&group.gate, &group.up, &group.down})
      for (const Member& member : *members) joined.tensors.push_back(member.tensor->name);
    out_.incoming.push_back(std::move(joined));
  }

  static Shape joined_shape(const JoinedKey& key, const Join& group) {
    const std::vector<Member>& first = key.down ? group.down : group.gate;
    Shape one = first.front().tensor->shape;
    if (one.size() != 2) return one;
    const auto experts = static_cast<int64_t>(first.size());
    if (!key.down) {
      const Shape& up = group.up.front().tensor->shape;
      one[0] += up.size() == 2 ? up[0] : 0;
      if (key.b && up.size() == 2) one[1] += up[1];
    }
    one[key.b ? 1 : 0] *= experts;
    return one;
  }

  const Host& host_;
  const std::vector<std::string>& saved_;
  std::map<JoinedKey, Join> joins_;
  Renamed out_;
};

}  // namespace

Renamed rename_tensors(const std::vector<TensorHeader>& tensors, const Host& host,
                       const std::vector<std::string>& saved) {
  return Renaming(host, saved).run(tensors);
}

}  // namespace moelora::peft
