#include "lib/engine/peft/wrap.h"

#include <fmt/format.h>

#include <algorithm>

#include "lib/adapter/tensor_name.h"
#include "lib/base/regex/python_regex.h"
#include "lib/engine/python_text.h"

namespace moelora::peft {
namespace {

constexpr size_t kMostNames = 40;
constexpr std::string_view kBaseLayer = ".base_layer";

class Injection {
 public:
  Injection(const Config& config, const Host& host, const Modules& modules)
      : config_(config), host_(host), modules_(modules) {
    if (config.target_regex) regex_.emplace(*config.target_regex);
    if (config.exclude_regex) exclude_.emplace(*config.exclude_regex);
  }

  Wrapped run() {
    wrap_containers();
    for (const Module& module : modules_.all) {
      if (out_.refusal) return std::move(out_);
      wrap_module(module);
    }
    for (const Module& module : modules_.all) save_module(module);
    if (!out_.refusal && out_.layers.empty()) refuse_nothing_found();
    index();
    return std::move(out_);
  }

 private:
  void refuse(std::string place, std::string type, std::string text, std::string about) {
    if (out_.refusal) return;
    out_.refusal = Refusal{std::move(place), std::move(type), std::move(text)};
    out_.refused = std::move(about);
  }

  bool is_excluded(std::string_view path) const {
    if (exclude_ && exclude_->fullmatch(path)) return true;
    if (ends_in_any(path, config_.exclude_modules)) return true;
    return std::any_of(config_.modules_to_save.begin(), config_.modules_to_save.end(),
                       [&](const std::string& name) { return ends_in(path, name); });
  }

  // re.match of PEFT's layer pattern: the first number after a list's name, since 0.20; the last
  // before it, which is an expert's where there is one.
  std::optional<int64_t> layer_of(std::string_view path) const {
    std::optional<int64_t> out;
    size_t at = 0;
    for (std::string_view before; at < path.size();) {
      const size_t dot = path.find('.', at);
      if (dot == std::string_view::npos) break;
      const std::string_view part = path.substr(at, dot - at);
      const bool named = config_.layers_pattern.empty() || before == config_.layers_pattern;
      if (const auto number = parse_index(part); number && named && at > 0 && !before.empty()) {
        out = *number;
        if (host_.has("0.20")) return out;
      }
      before = part;
      at = dot + 1;
    }
    return out;
  }

  bool is_target(std::string_view path) const {
    if (is_excluded(path)) return false;
    if (regex_) return regex_->fullmatch(path);
    if (config_.target_modules.count(path) != 0) return true;
    if (!ends_in_any(path, config_.target_modules)) return false;
    if (!config_.layers) return true;
    const auto layer = layer_of(path);
    return layer && config_.layers->count(*layer) != 0;
  }

  void refuse_module(std::string_view path) {
    refuse("peft/tuners/lora/model.py _create_new_module", "ValueError",
           fmt::format("Target module {} is not supported. Currently, only the following modules "
                       "are supported: `torch.nn.Linear`, `torch.nn.Embedding`, "
                       "`torch.nn.Conv1d`, `torch.nn.Conv2d`, `torch.nn.Conv3d`, "
                       "`transformers.pytorch_utils.Conv1D`, `torch.nn.MultiheadAttention.`.",
                       path),
           std::string(path));
  }

  void wrap_containers() {
    for (const std::string& path : modules_.containers)
      if (modules_.find(path) == nullptr && is_target(path)) refuse_module(path);
  }

  void add(std::string key, Shape shape, const std::string& target) {
    out_.slots.push_back({std::move(key), std::move(shape), target, false});
  }

  void add_pair(const std::string& path, const std::string& target, int64_t in, int64_t out,
                int64_t experts) {
    const int64_t rank = config_.rank(target) * experts;
    add(path + ".lora_A.default.weight", {rank, in}, target);
    add(path + ".lora_B.default.weight", {out, rank}, target);
  }

  void wrap_linear(const Module& module) {
    add_pair(module.path, module.path, module.in, module.out, 1);
    if (config_.lora_bias) add(module.path + ".lora_B.default.bias", {module.out}, module.path);
    if (config_.use_dora)
      add(module.path + ".lora_magnitude_vector.default.weight", {module.out}, module.path);
  }

  void wrap_embedding(const Module& module) {
    const int64_t rank = config_.rank(module.path);
    add(module.path + ".lora_embedding_A.default", {rank, module.in}, module.path);
    add(module.path + ".lora_embedding_B.default", {module.out, rank}, module.path);
    if (config_.use_dora)
      add(module.path + ".lora_magnitude_vector.default.weight", {module.out}, module.path);
  }

  bool is_refused_type(std::string_view path) {
    const std::vector<std::string>& refuses = host_.spec.peft.refuses;
    const std::string name(last_name(path));
    if (std::find(refuses.begin(), refuses.end(), name) == refuses.end()) return false;
    refuse(
        "peft/tuners/tuners_utils.py _check_lora_target_modules_mamba", "ValueError",
        fmt::format("[PEFT:PeftType.LORA] Module '{}' is incompatible with Mamba-based models "
                    "(model_type='{}'). Incompatible modules: {}. Please remove it from "
                    "`target_modules` to avoid compatibility issues.",
                    name, host_.spec.model_type, py_set(NameSet(refuses.begin(), refuses.end()))),
        std::string(path));
    return true;
  }

  void wrap_module(const Module& module) {
    const bool target = is_target(module.path);
    if (target) {
      if (is_refused_type(module.path)) return;
      if (module.kind == Module::Kind::unsupported) return refuse_module(module.path);
      ++out_.layers[module.path];
      if (module.kind == Module::Kind::linear)
        wrap_linear(module);
      else
        wrap_embedding(module);
    }
    wrap_parameters(module, target);
  }

  bool is_parameter_target(const std::string& path) const {
    return ends_in_any(path, config_.target_parameters);
  }

  // PEFT's ParamWrapper says no to what it cannot do on a parameter, in this order.
  bool refuses_wrapper(const std::string& path) {
    const std::pair<bool, std::string_view> limits[] = {
        {config_.lora_dropout != 0, "lora_dropout != 0"},
        {config_.fan_in_fan_out, "lora_fan_in_fan_out"},
        {config_.lora_bias, "lora_bias=True"},
        {config_.use_dora, "use_dora=True"}};
    for (const auto& [found, words] : limits) {
      if (!found) continue;
      refuse("peft/tuners/lora/layer.py __init__", "ValueError",
             fmt::format("lora.ParamWrapper does not work with {}.", words), path);
      return true;
    }
    return false;
  }

  void wrap_parameter(const std::string& path, const std::string& target, const Shape& shape) {
    if (shape.size() == 2) return add_pair(path, target, shape[1], shape[0], 1);
    const size_t in = host_.reads_in_out() ? 1 : 2;
    add_pair(path, target, shape[in], shape[3 - in], shape[0]);
    for (size_t i = out_.slots.size() - 2; i < out_.slots.size(); ++i) out_.slots[i].batched = true;
  }

  // The first parameter of the class is the innermost.
  void wrap_parameters(const Module& module, bool is_wrapped) {
    std::vector<const std::pair<std::string, Shape>*> found;
    for (const auto& parameter : module.parameters)
      if (is_parameter_target(module.path + "." + parameter.first)) found.push_back(&parameter);
    if (found.empty()) return;
    if (is_wrapped)
      return refuse("peft/tuners/tuners_utils.py _create_and_replace_param", "ValueError",
                    fmt::format("Trying to wrap an `nn.Parameter` of layer '{}', which is not a "
                                "valid target. Make sure that this layer is not also targeted "
                                "with `target_modules`.",
                                last_name(module.path)),
                    module.path);
    std::string path = module.path;
    for (size_t i = 1; i < found.size(); ++i) path += kBaseLayer;
    for (const auto* parameter : found) {
      const std::string target = module.path + "." + parameter->first;
      if (parameter->second.size() < 2 || refuses_wrapper(target)) return;
      ++out_.layers[module.path];
      wrap_parameter(path, target, parameter->second);
      if (path.size() > module.path.size()) path.resize(path.size() - kBaseLayer.size());
    }
  }

  void save_module(const Module& module) {
    if (std::none_of(config_.modules_to_save.begin(), config_.modules_to_save.end(),
                     [&](const std::string& name) { return module.path.ends_with(name); }))
      return;
    out_.saved.insert(module.path);
    for (const auto& [name, shape] : module.parameters)
      add(module.path + ".modules_to_save.default." + name, shape, module.path);
  }

  void refuse_nothing_found() {
    constexpr std::string_view kPlace = "peft/tuners/tuners_utils.py inject_adapter";
    const bool none = config_.target_modules.empty() && !config_.target_regex;
    const std::string named =
        config_.target_regex
            ? *config_.target_regex
            : py_set(NameSet(config_.target_modules.begin(), config_.target_modules.end()),
                     kMostNames);
    refuse(std::string(kPlace), host_.has("0.21") ? "NoMatchingPeftModuleError" : "ValueError",
           none ? "No `target_modules` passed but also no `target_parameters` found. Please check "
                  "the values for these arguments."
                : fmt::format("Target modules {} not found in the base model. Please check the "
                              "target modules and try again.",
                              named),
           "");
  }

  void index() {
    for (size_t i = 0; i < out_.slots.size(); ++i) out_.by_key.emplace(out_.slots[i].key, i);
  }

  const Config& config_;
  const Host& host_;
  const Modules& modules_;
  std::optional<PythonRegex> regex_, exclude_;
  Wrapped out_;
};

}  // namespace

const Slot* Wrapped::find(std::string_view key) const {
  const auto at = by_key.find(key);
  return at == by_key.end() ? nullptr : &slots[at->second];
}

Wrapped wrap(const Config& config, const Host& host, const Modules& modules) {
  return Injection(config, host, modules).run();
}

}  // namespace moelora::peft
