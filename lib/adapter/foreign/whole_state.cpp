#include "lib/adapter/foreign/whole_state.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <unordered_set>
#include <utility>

#include "lib/adapter/dialect.h"
#include "lib/adapter/tensor_name.h"
#include "lib/base/dotted_path.h"
#include "lib/base/utf8.h"

namespace moelora {
namespace {

using Text = std::string_view;

bool is_factor(TensorPart part) {
  return part != TensorPart::other && part != TensorPart::base_weight;
}

bool strip_end(Text& text, Text end) {
  if (!text.ends_with(end)) return false;
  text.remove_suffix(end.size());
  return true;
}

// The module whose weight this is, as its factors name it: expert parameters lie under
// ".base_layer" as often as factors are nested.
Text adapted(Text module) {
  while (strip_end(module, ".base_layer")) {
  }
  return module;
}

// A trainer's module may hold the model under a name of its own: "model.base_model.model.".
Text without_holder(Text name) {
  constexpr Text kInside = ".base_model.model.";
  const size_t at = name.find(kInside);
  return at == Text::npos ? name : name.substr(at + 1);
}

// PEFT saves the weights of these two whole beside their factors (save_embedding_layers).
bool is_saved_whole(Text module) {
  const Text leaf = leaf_of(module);
  return leaf == "embed_tokens" || leaf == "lm_head";
}

// The name that PEFT saves it under: a live model has the adapter's name in its own, which
// `adapter` becomes.
std::string saved_name(Text name, std::string& adapter) {
  constexpr std::array<Text, 6> kHolders = {".lora_A.",
                                            ".lora_B.",
                                            ".lora_embedding_A.",
                                            ".lora_embedding_B.",
                                            ".lora_magnitude_vector.",
                                            ".modules_to_save."};
  std::string out(name);
  for (const Text holder : kHolders) {
    const size_t at = out.find(holder);
    if (at == std::string::npos) continue;
    const size_t begin = at + holder.size(), end = out.find('.', begin);
    const Text word = Text(out).substr(begin, end - begin);
    if (word == "weight" || word == "bias") continue;
    adapter = word;
    if (holder == ".modules_to_save.")
      out.erase(at, (end == std::string::npos ? out.size() : end) - at);
    else
      out.erase(begin - 1, (end == std::string::npos ? out.size() : end) - begin + 1);
  }
  return out;
}

// Of another trainer's dialect, read or not; diffusers' alphas and MLX's magnitudes have names that
// could be anybody's.
bool is_foreign(Text name) {
  const Text leaf = leaf_of(name);
  return leaf == "alpha" || leaf == "m" || dialect_of_name(name) != nullptr;
}

// The weight of a module of the base: of a name that belongs to no trainer's factors, read or not.
// `saved`: saved_name(name).
bool is_kept(Text name, Text saved) {
  return is_factor(view_tensor_name(saved).part) || name.find(".modules_to_save.") != Text::npos ||
         is_foreign(saved);
}

// [0] is what ZeRO-3 leaves of a parameter in each rank's model state; "flat_param" is FSDP's.
void refuse_shards(const TensorMap& tensors) {
  for (const auto& [name, tensor] : tensors) {
    if (leaf_of(name).ends_with("flat_param"))
      throw Error(name, "is one rank's flat shard of FSDP, not a tensor of the model",
                  "Save a full state dict (FULL_STATE_DICT), which rank 0 gathers.");
    if (is_factor(view_tensor_name(name).part) && tensor.shape() == Shape{0})
      throw Error(name,
                  "is empty: DeepSpeed ZeRO-3 keeps its values in the shards of the optimizer",
                  "Gather them: python zero_to_fp32.py CHECKPOINT OUT, and give that file.");
  }
}

// A live model's factors have the adapter's name in theirs; two adapters are not one.
void refuse_several(const TensorMap& tensors) {
  std::string adapter;
  for (const auto& [name, tensor] : tensors) {
    if (name.ends_with(".lora_A.weight") || name.ends_with(".lora_B.weight")) continue;
    std::string other;
    saved_name(without_holder(name), other);
    if (!other.empty() && adapter.empty()) adapter = other;
    if (!other.empty() && adapter != other)
      throw Error(name,
                  fmt::format("is of the adapter {}, and the file has another, {}",
                              in_quotes(other), in_quotes(adapter)),
                  "save the one that is meant with model.save_pretrained");
  }
}

}  // namespace

bool holds_base(const TensorMap& tensors) {
  std::unordered_set<Text> modules;  // with factors
  std::vector<Text> others;          // modules of what is no factor
  for (const auto& [given, tensor] : tensors) {
    const Text name = without_peft_prefix(without_holder(given));
    const auto [module, part] = view_tensor_name(name);
    if (is_factor(part))
      modules.insert(adapted(module));
    else if (is_foreign(name))
      modules.insert(adapted(name.substr(0, name.rfind(".lora"))));
    else if (!name.ends_with("bias"))
      others.push_back(adapted(parent_of(name)));
  }
  return std::any_of(others.begin(), others.end(), [&](Text module) {
    return modules.count(module) != 0 && !is_saved_whole(module);
  });
}

void take_factors_out(AdapterFiles& files) {
  refuse_shards(files.tensors);
  refuse_several(files.tensors);
  if (!holds_base(files.tensors)) return;
  TensorMap out;
  for (auto& [name, tensor] : files.tensors) {
    const Text own = without_holder(name);
    std::string other;
    std::string saved = saved_name(own, other);
    if (!is_kept(own, saved)) continue;
    const auto [at, added] = out.emplace(std::move(saved), tensor);
    if (!added)
      throw Error(name, fmt::format("is a second {}: the file holds several adapters", at->first),
                  "save the one that is meant with model.save_pretrained");
  }
  files.notes.push_back(
      fmt::format("a whole model's state: {} tensors of the adapter are read, {} of the base "
                  "model's own are left out",
                  out.size(), files.tensors.size() - out.size()));
  files.tensors = std::move(out);
  files.in_whole_state = true;
}

std::string config_to_write(const TensorMap& tensors) {
  for (const auto& [name, tensor] : tensors) {
    const auto [module, part] = view_tensor_name(name);
    if (part != TensorPart::lora_a || tensor.rank() < 2 || is_expert_parameter(module)) continue;
    return fmt::format(
        "Write one beside the weights: {{\"peft_type\": \"LORA\", \"r\": {}, \"lora_alpha\": "
        "ALPHA}} with the ALPHA that was trained with.",
        tensor.dim(tensor.rank() - 2));
  }
  return "";
}

}  // namespace moelora
