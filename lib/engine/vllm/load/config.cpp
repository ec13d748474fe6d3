#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "lib/base/error.h"
#include "lib/engine/python_text.h"
#include "lib/engine/vllm/causes.h"
#include "lib/engine/vllm/load/adapter.h"

namespace moelora::vllm {
namespace {

bool is_number(const Json& value) { return value.is_number() || value.is(Json::Kind::boolean); }

double number(const Json& value) {
  return value.is(Json::Kind::boolean) ? static_cast<double>(value.as_bool()) : value.as_double();
}

bool is_float(const Json& value) { return value.is(Json::Kind::real); }

// Of the dataclass's fields without a default.
std::vector<std::string> missing_fields(const Json& config) {
  std::vector<std::string> out;
  for (std::string_view field : {"r", "lora_alpha", "target_modules"})
    if (config.find(field) == nullptr) out.emplace_back(field);
  return out;
}

bool flag(const Json& config, std::string_view key) {
  const Json* value = config.find(key);
  return value != nullptr && py_bool(*value);
}

// "config[...] = ..." of what json.load() gave.
void check_is_dict(const Json& config) {
  if (config.is(Json::Kind::object)) return;
  if (config.is(Json::Kind::array))
    throw Raised("TypeError", "list indices must be integers or slices, not str");
  throw Raised("TypeError",
               fmt::format("'{}' object does not support item assignment", py_type(config)));
}

void check_rank(const Json& rank, const std::string& name) {
  if (!is_number(rank))
    throw Raised("TypeError", fmt::format("'<=' not supported between instances of '{}' and 'int'",
                                          py_type(rank)));
  if (number(rank) <= 0)
    throw Raised("ValueError", fmt::format("LoRA rank {} must be a positive integer, got {}.", name,
                                           py_str(rank)));
}

double square_root(const Json& r) {
  if (!is_number(r))
    throw Raised("TypeError", fmt::format("must be real number, not {}", py_type(r)));
  if (number(r) < 0) throw Raised("ValueError", "math domain error");
  return std::sqrt(number(r));
}

double divided(const Json& alpha, double by, std::string_view type) {
  if (!is_number(alpha) || type == "str" || type == "NoneType" || type == "list" || type == "dict")
    throw Raised("TypeError", fmt::format("unsupported operand type(s) for /: '{}' and '{}'",
                                          py_type(alpha), type));
  if (by == 0)
    throw Raised("ZeroDivisionError", is_float(alpha) || type == "float" ? "float division by zero"
                                                                         : "division by zero");
  return number(alpha) / by;
}

double plain_scaling(const Json& alpha, const Json& r) {
  return divided(alpha, is_number(r) ? number(r) : 1, py_type(r));
}

double scaling_of(const Json& alpha, const Json& rank, bool rslora) {
  return rslora ? divided(alpha, square_root(rank), "float") : plain_scaling(alpha, rank);
}

PatternTable<Json> pattern(const Json& config, std::string_view key) {
  PatternTable<Json> out;
  const Json* table = config.find(key);
  if (table != nullptr && table->is(Json::Kind::object))
    for (const auto& [name, value] : table->members()) out.add(name, value);
  return out;
}

// Of 0.32 and later.
void read_patterns(const Json& config, LoraConfig& out) {
  out.ranks = pattern(config, "rank_pattern");
  out.alphas = pattern(config, "alpha_pattern");
  for (size_t i = 0; i < out.ranks.size(); ++i)
    check_rank(out.ranks.value(i),
               fmt::format("for `{}` in `rank_pattern`", out.ranks.keys().key(i)));
}

// PEFTHelper.__post_init__.
void compute_scaling(const Json& config, const Settings& settings, LoraConfig& out) {
  const Json &r = *config.find("r"), &alpha = *config.find("lora_alpha");
  if (settings.has("0.27rc0")) check_rank(r, "`r`");
  if (settings.has("0.32")) read_patterns(config, out);
  out.r = r;
  out.alpha = alpha;
  out.rslora = flag(config, "use_rslora");
  out.scaling = scaling_of(alpha, r, out.rslora);
  out.expert_scaling = settings.has("0.30") ? out.scaling : plain_scaling(alpha, r);
}

// The first key that matches; null where none does, or Python cannot read one before it.
const Json* matched(const PatternTable<Json>& patterns, const std::string& module) {
  try {
    return patterns.find(module);
  } catch (const Error&) {
    throw Raised("error", "a key of rank_pattern or alpha_pattern is not a regular expression");
  }
}

struct Complaint {
  const Cause* cause;
  std::string text, detail;
};

void complain_of_saved_modules(const Json& config, const Settings& settings,
                               std::vector<Complaint>& out) {
  if (!flag(config, "modules_to_save")) return;
  const Json& saved = *config.find("modules_to_save");
  std::string text = "vLLM only supports modules_to_save being None.";
  if (settings.has("0.31") && saved.is(Json::Kind::array)) {
    std::vector<std::string> others;
    for (const Json& name : saved.items())
      if (!name.is(Json::Kind::string))
        others.push_back(name.dump(-1));
      else if (name.as_string() != "classifier" && name.as_string() != "score")
        others.push_back(name.as_string());
    if (others.empty()) return;
    text =
        "vLLM only supports modules_to_save being either None or [\"classifier\", \"score\"] for "
        "classification models. Unsupported modules_to_save: " +
        py_list(others);
  }
  out.push_back({&cause::modules_to_save, std::move(text), "is " + saved.dump(-1)});
}

// Of init_lora_weights: they set the adapter's first weights and leave the base's alone.
bool keeps_base(const Json& init) {
  constexpr std::array<std::string_view, 5> kPlain = {"gaussian", "eva", "orthogonal", "mica",
                                                      "lora_ga"};
  if (!init.is(Json::Kind::string)) return true;
  std::string name = init.as_string();
  std::transform(name.begin(), name.end(), name.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  return std::find(kPlain.begin(), kPlain.end(), name) != kPlain.end();
}

// PEFT's features that 0.32 and later refuse by name; before, they were passed over.
void complain_of_features(const Json& config, std::vector<Complaint>& out) {
  const auto complain = [&](std::string_view key, std::string text) {
    out.push_back({key == "lora_bias" ? &cause::bias : &cause::peft_feature, std::move(text),
                   fmt::format("{} is {}", key, config.find(key)->dump(-1))});
  };
  if (flag(config, "lora_bias"))
    complain("lora_bias", "vLLM does not support LoRA bias (lora_bias).");
  const Json* init = config.find("init_lora_weights");
  if (init != nullptr && !keeps_base(*init))
    complain("init_lora_weights",
             fmt::format("vLLM does not support init_lora_weights={}. Inits such as PiSSA, OLoRA, "
                         "CorDA and LoftQ modify the base model weights when PEFT loads the "
                         "adapter. Convert it to a regular LoRA adapter with PEFT's "
                         "path_initial_model_for_weight_conversion, or set init_lora_weights to "
                         "true if the served base model already contains the modified weights.",
                         py_repr(init->as_string())));
  constexpr std::array<std::pair<std::string_view, std::string_view>, 4> kOthers = {
      {{"alora_invocation_tokens", "Activated LoRA (aLoRA)"},
       {"layer_replication", "layer_replication"},
       {"use_bdlora", "block-diagonal LoRA (BD-LoRA)"},
       {"use_qalora", "QALoRA"}}};
  for (const auto& [key, name] : kOthers)
    if (flag(config, key)) complain(key, fmt::format("vLLM does not support {}.", name));
}

// The rank that is compared with --max-lora-rank: of every key of rank_pattern too, used or not.
Json largest_rank(const Json& config, const LoraConfig& scales) {
  Json out = *config.find("r");
  for (size_t i = 0; i < scales.ranks.size(); ++i)
    if (number(scales.ranks.value(i)) > number(out)) out = scales.ranks.value(i);
  return out;
}

void complain_of_rank(const Json& config, const Settings& settings, const LoraConfig& scales,
                      std::vector<Complaint>& out) {
  const Json rank = largest_rank(config, scales);
  if (number(rank) <= static_cast<double>(settings.max_rank)) return;
  const bool own = number(rank) == number(*config.find("r"));
  out.push_back({&cause::rank_over_limit,
                 fmt::format("LoRA rank {} is greater than max_lora_rank {}.", py_str(rank),
                             settings.max_rank),
                 fmt::format("{}is {}, the server's --max-lora-rank {}",
                             own ? "" : "the largest rank of rank_pattern ", py_str(rank),
                             settings.max_rank)});
}

std::vector<Complaint> complaints(const Json& config, const Settings& settings,
                                  const LoraConfig& scales) {
  std::vector<Complaint> out;
  complain_of_saved_modules(config, settings, out);
  if (flag(config, "use_dora"))
    out.push_back({&cause::dora, "vLLM does not yet support DoRA.", "is true"});
  if (settings.has("0.32")) complain_of_features(config, out);
  complain_of_rank(config, settings, scales, out);
  const Json* bias = config.find("bias");
  if (bias != nullptr && !(bias->is(Json::Kind::string) && bias->as_string() == "none"))
    out.push_back({&cause::bias, "Adapter bias is not supported.",
                   fmt::format("is {}, vLLM takes \"none\"", bias->dump(-1))});
  return out;
}

// PEFTHelper.validate_legal: all complaints in one ValueError.
void validate(const Json& config, const Settings& settings, LoraConfig& out) {
  const std::vector<Complaint> all = complaints(config, settings, out);
  std::string text;
  for (const Complaint& complaint : all) text += (text.empty() ? "" : " ") + complaint.text;
  for (const Complaint& complaint : all)
    out.events.push_back(
        refused(complaint.cause, "validate", Raised("ValueError", text), complaint.detail));
}

LoadEvent refusal(std::string_view stage, const Raised& raised, std::string detail) {
  return refused(&cause::config_refused, stage, raised, std::move(detail));
}

std::string shown(const Json& config, std::string_view key) {
  const Json* value = config.find(key);
  return value == nullptr ? "absent" : value->dump(-1);
}

// What ends the load before validate_legal; the scales go into `out`.
std::optional<LoadEvent> read_scales(const ServedAdapter& adapter, const Settings& settings,
                                     LoraConfig& out) {
  if (!adapter.has_config)
    return refusal("load",
                   Raised("LoRAAdapterNotFoundError",
                          fmt::format("Loading lora {} failed: No adapter found for {}",
                                      adapter.name, adapter.folder)),
                   "no adapter_config.json that can be read");
  const Json& config = adapter.config;
  if (const auto raised = raised_by([&] { check_is_dict(config); }))
    return refusal("config", *raised, "adapter_config.json is not an object");
  if (const auto missing = missing_fields(config); !missing.empty())
    return refusal("config",
                   Raised("ValueError", "Missing required configuration fields: " +
                                            py_set(NameSet(missing.begin(), missing.end()))),
                   fmt::format("{} {} missing; null counts as there", fmt::join(missing, " and "),
                               missing.size() == 1 ? "is" : "are"));
  if (const auto raised = raised_by([&] { compute_scaling(config, settings, out); }))
    return refusal("config", *raised,
                   fmt::format("\"r\" is {}, \"lora_alpha\" is {} and \"rank_pattern\" is {}",
                               shown(config, "r"), shown(config, "lora_alpha"),
                               shown(config, "rank_pattern")));
  return std::nullopt;
}

}  // namespace

double LoraConfig::scale_of(std::string module) const {
  if (!has_patterns()) return scaling;
  constexpr std::string_view kInner = ".experts.base_layer", kOuter = ".experts";
  if (module.ends_with(kInner))
    module = module.substr(0, module.rfind('.')) + ".gate_up_proj";
  else if (module.ends_with(kOuter))
    module += ".down_proj";
  const Json *rank = matched(ranks, module), *own_alpha = matched(alphas, module);
  return scaling_of(own_alpha != nullptr ? *own_alpha : alpha, rank != nullptr ? *rank : r, rslora);
}

LoraConfig read_config(const ServedAdapter& adapter, const Settings& settings) {
  LoraConfig out;
  if (auto event = read_scales(adapter, settings, out)) {
    out.events.push_back(std::move(*event));
  } else {
    out.readable = true;
    validate(adapter.config, settings, out);
  }
  return out;
}

}  // namespace moelora::vllm
