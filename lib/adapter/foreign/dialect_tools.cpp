#include "lib/adapter/foreign/dialect_tools.h"

#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "lib/adapter/config/config_writer.h"
#include "lib/base/dotted_path.h"

namespace moelora {

bool has_any(std::string_view name, std::initializer_list<std::string_view> parts) {
  return std::any_of(parts.begin(), parts.end(), [&](std::string_view part) {
    return name.find(part) != std::string_view::npos;
  });
}

bool ends_in_one(std::string_view name, std::initializer_list<std::string_view> endings) {
  return std::any_of(endings.begin(), endings.end(),
                     [&](std::string_view ending) { return name.ends_with(ending); });
}

std::string_view without_weight(std::string_view name) {
  constexpr std::string_view kWeight = ".weight";
  if (name.ends_with(kWeight)) name.remove_suffix(kWeight.size());
  return name;
}

std::string_view last_word(std::string_view name) { return leaf_of(without_weight(name)); }

bool is_lora_word(std::string_view word, char a, char b) {
  const bool side =
      word.size() > 7 && word[word.size() - 2] == '_' && (word.back() == a || word.back() == b);
  return side && word.starts_with("lora_") && !word.starts_with("lora_embedding_");
}

void put(Translation& out, const std::string& from, const std::string& to, Tensor tensor) {
  if (!out.tensors.emplace(to, std::move(tensor)).second)
    throw Error(from, fmt::format("is a second {} once it is under PEFT's name", to),
                "keep one of the two");
  if (from != to) out.own_names.emplace(to, from);
}

Json peft_config(const std::string& where, int64_t r, double alpha) {
  if (!std::isfinite(alpha))
    throw Error(in_file(where), fmt::format("gives lora_alpha the value {}", alpha),
                "correct the scale that the trainer wrote");
  return Json::object({{"peft_type", "LORA"},
                       {"task_type", "CAUSAL_LM"},
                       {"r", Json(r)},
                       {"lora_alpha", whole_or_real(alpha)},
                       {"lora_dropout", Json(0.0)},
                       {"bias", "none"},
                       {"fan_in_fan_out", Json(false)},
                       {"use_rslora", Json(false)},
                       {"use_dora", Json(false)}});
}

Error needs_base(const std::string& name, const std::string& why) {
  return Error(name, why, {"name the base model with ", Option::base});
}

const ModelSpec* base_of_names(const ForeignAdapter& in, bool (*owns)(std::string_view),
                               const std::string& why, Translation& out) {
  const auto first = std::find_if(in.tensors.begin(), in.tensors.end(),
                                  [&](const auto& entry) { return owns(entry.first); });
  if (first != in.tensors.end()) {
    if (in.spec == nullptr) throw needs_base(first->first, why);
    return in.spec;
  }
  out.tensors = in.tensors;
  return nullptr;
}

}  // namespace moelora
