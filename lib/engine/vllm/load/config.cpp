#include <fmt/format.h>

#include <cmath>

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

void check_rank(const Json& r) {
  if (!is_number(r))
    throw Raised("TypeError",
                 fmt::format("'<=' not supported between instances of '{}' and 'int'", py_type(r)));
  if (number(r) <= 0)
    throw Raised("ValueError",
                 fmt::format("LoRA rank `r` must be a positive integer, got {}.", py_str(r)));
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

// PEFTHelper.__post_init__.
void compute_scaling(const Json& config, const Settings& settings, LoraConfig& out) {
  const Json &r = *config.find("r"), &alpha = *config.find("lora_alpha");
  if (settings.has("0.27rc0")) check_rank(r);
  out.scaling = flag(config, "use_rslora") ? divided(alpha, square_root(r), "float")
                                           : plain_scaling(alpha, r);
  out.expert_scaling = settings.has("0.29") ? out.scaling : plain_scaling(alpha, r);
}

struct Complaint {
  const Cause* cause;
  std::string text, detail;
};

std::vector<Complaint> complaints(const Json& config, const Settings& settings) {
  std::vector<Complaint> out;
  if (flag(config, "modules_to_save"))
    out.push_back({&cause::modules_to_save, "vLLM only supports modules_to_save being None.",
                   "is " + config.find("modules_to_save")->dump(-1)});
  if (flag(config, "use_dora"))
    out.push_back({&cause::dora, "vLLM does not yet support DoRA.", "is true"});
  const Json& r = *config.find("r");
  if (number(r) > static_cast<double>(settings.max_rank))
    out.push_back(
        {&cause::rank_over_limit,
         fmt::format("LoRA rank {} is greater than max_lora_rank {}.", py_str(r),
                     settings.max_rank),
         fmt::format("is {}, the server's --max-lora-rank {}", py_str(r), settings.max_rank)});
  const Json* bias = config.find("bias");
  if (bias != nullptr && !(bias->is(Json::Kind::string) && bias->as_string() == "none"))
    out.push_back({&cause::bias, "Adapter bias is not supported.",
                   fmt::format("is {}, vLLM takes \"none\"", bias->dump(-1))});
  return out;
}

// PEFTHelper.validate_legal: all complaints in one ValueError.
void validate(const Json& config, const Settings& settings, LoraConfig& out) {
  const std::vector<Complaint> all = complaints(config, settings);
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
                   fmt::format("\"r\" is {} and \"lora_alpha\" is {}", shown(config, "r"),
                               shown(config, "lora_alpha")));
  return std::nullopt;
}

}  // namespace

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
