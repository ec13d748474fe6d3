#include "lib/adapter/names/text_names.h"

#include <algorithm>
#include <array>
#include <map>
#include <optional>
#include <span>

#include "lib/adapter/tensor_name.h"

namespace moelora {
namespace {

constexpr std::array<std::string_view, 6> kPrefixes = {
    "model.language_model.", "language_model.model.", "language_model.", "model.", "backbone.", ""};

constexpr std::array<std::string_view, 11> kVision = {
    "visual",        "vision_model",          "vision_tower", "vision_encoder",
    "vision",        "image_tower",           "audio_tower",  "audio_model",
    "audio_encoder", "multi_modal_projector", "mm_projector"};
constexpr std::array<std::string_view, 1> kPrediction = {"mtp"};

bool has_component(std::string_view module, std::span<const std::string_view> words) {
  while (true) {
    const size_t dot = module.find('.');
    if (std::find(words.begin(), words.end(), module.substr(0, dot)) != words.end()) return true;
    if (dot == std::string_view::npos) return false;
    module.remove_prefix(dot + 1);
  }
}

bool knows(const ModelSpec& spec, const std::string& module) {
  if (spec.find_linear(module) != nullptr) return true;
  const auto expert = parse_expert_path(module);
  return expert && (expert->stem == spec.factor_stem(Form::hub) ||
                    expert->stem == spec.factor_stem(Form::memory));
}

// The factors of one module by their part, in one spelling of its path.
using Factors = std::map<TensorPart, const TensorMap::value_type*>;
using Spellings = std::map<std::string, Factors>;  // by module

const Factors& kept_of(const Spellings& all, const ModelSpec* spec) {
  if (spec != nullptr)
    for (const auto& [module, factors] : all)
      if (knows(*spec, module)) return factors;
  return all.begin()->second;
}

bool are_twins(const Factors& a, const Factors& b) {
  return a.size() == b.size() && std::all_of(a.begin(), a.end(), [&](const auto& entry) {
           const auto other = b.find(entry.first);
           return other != b.end() && identical(entry.second->second, other->second->second);
         });
}

std::string_view tail_of(std::string_view module) {
  for (std::string_view prefix : kPrefixes) {
    if (!module.starts_with(prefix)) continue;
    const std::string_view rest = module.substr(prefix.size());
    if (rest.starts_with("layers.") || rest.find('.') == std::string_view::npos) return rest;
  }
  return {};
}

// Whether paths begin in one way alone: then no module has two.
bool have_one_prefix(const TensorMap& tensors) {
  std::optional<std::string_view> seen;
  for (const auto& [name, tensor] : tensors) {
    if (!wrapper_in(name).empty()) return false;
    const auto [module, part] = view_tensor_name(name);
    const std::string_view tail = tail_of(module);
    if (part > TensorPart::embedding_b || tail.empty()) continue;
    const std::string_view prefix = module.substr(0, module.size() - tail.size());
    if (seen.value_or(prefix) != prefix) return false;
    seen = prefix;
  }
  return true;
}

}  // namespace

std::string text_tail(std::string_view module) { return std::string(tail_of(module)); }

bool is_in_tower(std::string_view module) {
  return is_in_vision(module) || has_component(module, kPrediction);
}

bool is_in_vision(std::string_view module) { return has_component(module, kVision); }

std::set<std::string> text_twins(const TensorMap& tensors, const ModelSpec* spec) {
  if (have_one_prefix(tensors)) return {};
  std::map<std::string, Spellings> by_tail;
  for (const auto& entry : tensors) {
    const TensorName name = parse_tensor_name(entry.first);
    if (name.part > TensorPart::embedding_b) continue;
    if (const std::string tail = text_tail(name.module); !tail.empty())
      by_tail[tail][name.module].emplace(name.part, &entry);
  }
  std::set<std::string> out;
  for (const auto& [tail, all] : by_tail) {
    const Factors& kept = kept_of(all, spec);
    for (const auto& [module, factors] : all)
      if (&factors != &kept && are_twins(factors, kept))
        for (const auto& [part, entry] : factors) out.insert(entry->first);
  }
  return out;
}

}  // namespace moelora
