#include "lib/engine/peft/targets.h"

#include <fmt/format.h>

#include <array>
#include <cmath>

#include "lib/base/regex/python_regex.h"

namespace moelora::peft {
namespace {

constexpr std::string_view kConvertConfig =
    "peft/utils/transformers_weight_conversion.py _convert_peft_config_moe";

bool is_true(const Json& json, std::string_view key) {
  const Json* value = json.find(key);
  return value != nullptr && value->is(Json::Kind::boolean) && value->as_bool();
}

double number(const Json& json, std::string_view key, double otherwise) {
  const Json* value = json.find(key);
  return value != nullptr && value->is_number() ? value->as_double() : otherwise;
}

std::string text(const Json& json, std::string_view key) {
  const Json* value = json.find(key);
  return value != nullptr && value->is(Json::Kind::string) ? value->as_string() : "";
}

Names names(const Json& json, std::string_view key) {
  Names out;
  if (const Json* value = json.find(key))
    for (const Json& item : value->items())
      if (item.is(Json::Kind::string)) out.insert(item.as_string());
  return out;
}

std::optional<std::string> string_of(const Json& json, std::string_view key) {
  const Json* value = json.find(key);
  if (value == nullptr || !value->is(Json::Kind::string)) return std::nullopt;
  return value->as_string();
}

void read_layers(const Json& json, Config& config) {
  config.layers_pattern = text(json, "layers_pattern");
  const Json* layers = json.find("layers_to_transform");
  if (layers == nullptr || layers->is(Json::Kind::null)) return;
  config.layers.emplace();
  if (layers->is(Json::Kind::integer)) config.layers->insert(layers->as_int());
  for (const Json& item : layers->items())
    if (item.is(Json::Kind::integer)) config.layers->insert(item.as_int());
}

void read_patterns(const Json& json, Config& config) {
  if (const Json* pattern = json.find("rank_pattern"))
    for (const auto& [key, value] : pattern->members())
      if (value.is(Json::Kind::integer)) config.rank_pattern.add(key, value.as_int());
  if (const Json* pattern = json.find("alpha_pattern"))
    for (const auto& [key, value] : pattern->members())
      if (value.is_number()) config.alpha_pattern.add(key, value.as_double());
}

// The words of numbered experts that PEFT knows, and the parameter that each becomes.
struct Word {
  std::string old_name, new_name;
};

std::array<Word, 4> words_of(const Host& host) {
  const ExpertStorage& hub = host.spec.hub;
  return {{{"gate", "gate.weight"},
           {hub.gate, "gate_up_proj"},
           {hub.up, "gate_up_proj"},
           {hub.down, "down_proj"}}};
}

// The last names of the Linears that a string names; empty where it names none.
Names leaves_of(const std::string& target, const Host& host, const Modules& modules) {
  Names out;
  if (target == "all-linear") {
    for (const Module& module : modules.all)
      if (module.kind == Module::Kind::linear && last_name(module.path) != "lm_head")
        out.emplace(last_name(module.path));
    for (const Word& word : words_of(host)) out.insert(word.old_name);
    return out;
  }
  const PythonRegex regex(target);
  for (const Module& module : modules.all)
    if (regex.fullmatch(module.path)) out.emplace(last_name(module.path));
  for (int layer = 0; layer < host.spec.layers; ++layer)
    for (const Word& word : words_of(host))
      if (host.spec.is_moe(layer) &&
          regex.fullmatch(host.spec.expert_stem(Form::memory, layer) + "." + word.old_name))
        out.insert(word.old_name);
  return out;
}

// PEFT 0.19 takes a string for a list of its characters.
Names characters_of(const std::string& target) {
  Names out;
  for (char c : target) out.insert(std::string(1, c));
  return out;
}

const Word* word_of(std::string_view target, std::span<const Word> words) {
  for (const Word& word : words)
    if (ends_in(target, word.old_name)) return &word;
  return nullptr;
}

std::optional<Refusal> half_missing(const Names& found, const Host& host) {
  const std::string &gate = host.spec.hub.gate, &up = host.spec.hub.up;
  const bool has_gate = found.count(gate) != 0, has_up = found.count(up) != 0;
  if (has_gate == has_up) return std::nullopt;
  return Refusal{std::string(kConvertConfig), "ValueError",
                 fmt::format("Cannot convert PEFT target(s) {} without also targeting {} because "
                             "they are fused into gate_up_proj.",
                             has_gate ? gate : up, has_gate ? up : gate)};
}

std::optional<Refusal> convert_targets(Config& config, const Host& host) {
  const std::array<Word, 4> words = words_of(host);
  Names found, kept;
  for (const std::string& target : config.target_modules) {
    const Word* word = word_of(target, words);
    if (word == nullptr) {
      kept.insert(target);
      continue;
    }
    found.insert(word->old_name);
    config.target_parameters.insert(word->new_name);
  }
  if (auto refusal = half_missing(found, host)) return refusal;
  config.takes_targets = !found.empty();
  config.target_modules = std::move(kept);
  if (found.count(host.spec.hub.gate) == 0) return std::nullopt;
  config.doubles_rank = true;
  config.rank_pattern.add(R"(.*\.gate_up_proj)", 2 * config.r);
  config.alpha_pattern.add(R"(.*\.gate_up_proj)", 2 * config.lora_alpha);
  return std::nullopt;
}

void resolve_all_linear(Config& config, const Modules& modules) {
  config.target_regex.reset();
  for (const Module& module : modules.all)
    if (module.kind == Module::Kind::linear && last_name(module.path) != "lm_head")
      config.target_modules.insert(module.path);
}

}  // namespace

int64_t Config::rank(std::string_view path) const {
  const int64_t* found = rank_pattern.find(path);
  return found != nullptr ? *found : r;
}

double Config::alpha(std::string_view path) const {
  const double* found = alpha_pattern.find(path);
  return found != nullptr ? *found : lora_alpha;
}

double Config::scaling(std::string_view path) const {
  const auto rank_here = static_cast<double>(rank(path));
  return alpha(path) / (use_rslora ? std::sqrt(rank_here) : rank_here);
}

Config read_config(const Json& json) {
  Config out;
  if (const Json* r = json.find("r"); r != nullptr && r->is(Json::Kind::integer))
    out.r = r->as_int();
  out.lora_alpha = number(json, "lora_alpha", out.lora_alpha);
  out.lora_dropout = number(json, "lora_dropout", 0);
  out.use_rslora = is_true(json, "use_rslora");
  out.use_dora = is_true(json, "use_dora");
  out.lora_bias = is_true(json, "lora_bias");
  out.fan_in_fan_out = is_true(json, "fan_in_fan_out");
  out.target_regex = string_of(json, "target_modules");
  out.target_modules = names(json, "target_modules");
  out.target_parameters = names(json, "target_parameters");
  out.exclude_regex = string_of(json, "exclude_modules");
  out.exclude_modules = names(json, "exclude_modules");
  out.modules_to_save = names(json, "modules_to_save");
  out.task_type = text(json, "task_type");
  read_layers(json, out);
  read_patterns(json, out);
  return out;
}

std::optional<Refusal> resolve_targets(Config& config, const Host& host, const Modules& modules) {
  if (host.rewrites_targets()) {
    if (config.target_regex && !host.has("0.20")) {
      config.target_modules = characters_of(*config.target_regex);
      config.target_regex.reset();
    } else if (config.target_regex) {
      config.target_modules = leaves_of(*config.target_regex, host, modules);
      if (!config.target_modules.empty()) config.target_regex.reset();
    }
    if (auto refusal = convert_targets(config, host)) return refusal;
  }
  if (config.target_regex == "all-linear") resolve_all_linear(config, modules);
  return std::nullopt;
}

std::string_view last_name(std::string_view path) { return path.substr(path.rfind('.') + 1); }

}  // namespace moelora::peft
