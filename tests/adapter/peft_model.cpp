#include "tests/adapter/peft_model.h"

#include <cmath>
#include <regex>

#include "tests/model/catalogue.h"

namespace moelora::test {
namespace {

bool full_match(const std::string& text, const std::string& regex) {
  return std::regex_match(text, std::regex(regex));
}

// A list entry names a path that equals it, or ends with it after a dot; a string is a regex.
bool named(const Json* entries, const std::string& path) {
  if (entries == nullptr || entries->is(Json::Kind::null)) return false;
  if (entries->is(Json::Kind::string)) return full_match(path, entries->as_string());
  for (const Json& entry : entries->items())
    if (path == entry.as_string() || path.ends_with("." + entry.as_string())) return true;
  return false;
}

const Json* first_pattern(const Json* patterns, const std::string& path) {
  if (patterns == nullptr) return nullptr;
  for (const auto& [key, value] : patterns->members())
    if (full_match(path, "(.*\\.)?(" + key + ")")) return &value;
  return nullptr;
}

bool is_norm_or_embedding(const std::string& name) {
  return name.find("norm") != std::string::npos || name.find("embed") != std::string::npos;
}

// transformers 4's model: numbered experts are Linears. `fused`: gate and up of an expert are one.
PeftModel hub_model(const CatalogueEntry& family, bool fused) {
  PeftModel out;
  for (const auto& [name, shape] : family.saved) {
    if (shape.size() != 2 || !name.ends_with(".weight") || is_norm_or_embedding(name)) continue;
    std::string module = name.substr(0, name.size() - 7);
    const bool expert = module.find(".experts.") != std::string::npos;
    if (fused && expert && !module.ends_with("down_proj") && !module.ends_with("w2"))
      module = module.substr(0, module.rfind('.')) + ".gate_up_proj";
    if (fused && module.ends_with("w2")) module = module.substr(0, module.size() - 2) + "down_proj";
    out.modules.insert(module);
  }
  return out;
}

// gpt-oss as its numbered forms name it, which no transformers has.
PeftModel numbered_gpt_oss(const CatalogueEntry& family, bool fused) {
  PeftModel out = hub_model(family, fused);
  for (const std::string layer : {"model.layers.0.mlp.experts.", "model.layers.1.mlp.experts."})
    for (const char* e : {"0.", "1.", "2.", "3."})
      for (const char* p : {"gate_proj", "up_proj", "gate_up_proj", "down_proj"})
        if ((std::string(p) == "gate_up_proj") == fused || std::string(p) == "down_proj")
          out.modules.insert(layer + e + p);
  return out;
}

// transformers 5's: nn.Linear modules, and every weight as a parameter.
PeftModel memory_model(const CatalogueEntry& family) {
  PeftModel out;
  for (const auto& [name, shape] : family.memory) {
    if (shape.size() >= 2 && !is_norm_or_embedding(name)) out.parameters.insert(name);
    if (shape.size() != 2 || !name.ends_with(".weight") || is_norm_or_embedding(name)) continue;
    const std::string module = name.substr(0, name.size() - 7);
    const auto known = family.classes.find(module);
    if (known == family.classes.end() ? module == "lm_head" : known->second == "Linear")
      out.modules.insert(module);
  }
  return out;
}

}  // namespace

PeftModel model_for(const std::string& layout, const std::string& family) {
  const CatalogueEntry entry = catalogue_entry(family);
  if (layout == "peft-params") return memory_model(entry);
  const bool fused = layout == "linear-fused";
  return family == "gpt_oss" ? numbered_gpt_oss(entry, fused) : hub_model(entry, fused);
}

std::set<std::string> wrapped_modules(const Json& config, const PeftModel& model) {
  std::set<std::string> out;
  for (const std::string& path : model.modules)
    if (!named(config.find("exclude_modules"), path) && named(config.find("target_modules"), path))
      out.insert(path);
  return out;
}

std::set<std::string> wrapped_parameters(const Json& config, const PeftModel& model) {
  std::set<std::string> out;
  for (const std::string& path : model.parameters)
    if (named(config.find("target_parameters"), path)) out.insert(path);
  return out;
}

RankAndScale rank_and_scale(const Json& config, const std::string& path) {
  const Json* rank = first_pattern(config.find("rank_pattern"), path);
  const Json* alpha = first_pattern(config.find("alpha_pattern"), path);
  const int64_t r = rank != nullptr ? rank->as_int() : config.find("r")->as_int();
  const double a = alpha != nullptr ? alpha->as_double() : config.find("lora_alpha")->as_double();
  const Json* rslora = config.find("use_rslora");
  const bool root = rslora != nullptr && rslora->as_bool();
  return {r, a / (root ? std::sqrt(static_cast<double>(r)) : static_cast<double>(r))};
}

}  // namespace moelora::test
