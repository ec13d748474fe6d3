// Config keys that would make the engine refuse what the tensors alone allow.

#include <fmt/format.h>

#include "lib/base/error.h"
#include "lib/engine/fit/step.h"

namespace moelora::fit {
namespace {

// Whether `key` holds something else than null, false, "" or `harmless`.
bool says(const Json& config, std::string_view key, std::string_view harmless = "") {
  const Json* value = config.find(key);
  if (value == nullptr || value->is(Json::Kind::null)) return false;
  if (value->is(Json::Kind::boolean)) return value->as_bool();
  if (value->is(Json::Kind::string))
    return value->as_string() != harmless && !value->as_string().empty();
  if (value->is(Json::Kind::array)) return !value->items().empty();
  return true;
}

void set(FitContext& context, std::string_view key, Json value, std::vector<std::string>& changed) {
  changed.push_back(fmt::format("{} {}", key, value.dump(-1)));
  context.adapter.config.json.set(key, std::move(value));
}

// The tensors these keys speak of are gone by now: dropped, or never there.
void for_server(FitContext& context, std::vector<std::string>& changed) {
  const Json& config = context.adapter.config.json;
  if (says(config, "bias", "none")) set(context, "bias", Json("none"), changed);
  if (says(config, "lora_bias")) set(context, "lora_bias", Json(false), changed);
  if (says(config, "modules_to_save")) set(context, "modules_to_save", Json(), changed);
}

[[noreturn]] void refuse_beside_parameters(const AdapterConfig& config, std::string_view key) {
  throw Error(
      config.where,
      fmt::format("PEFT refuses \"{}\" beside target_parameters, which its experts become", key),
      {"use ", Option::to, " peft-linear, or train without it"});
}

// PEFT's ParamWrapper refuses DoRA, biases and dropout; the last counts in training only.
void for_peft(FitContext& context, std::vector<std::string>& changed) {
  const AdapterConfig& config = context.adapter.config;
  const Json* dropout = config.json.find("lora_dropout");
  if (!context.choice.layout->one_parameter || context.adapter.experts.empty()) return;
  if (config.use_dora) refuse_beside_parameters(config, "use_dora");
  if (config.lora_bias && context.drops(DropKind::bias))
    set(context, "lora_bias", Json(false), changed);
  else if (config.lora_bias)
    refuse_beside_parameters(config, "lora_bias");
  if (dropout != nullptr && dropout->is_number() && dropout->as_double() != 0)
    set(context, "lora_dropout", Json(0.0), changed);
}

void run(FitContext& context) {
  std::vector<std::string> changed;
  if (context.is("peft"))
    for_peft(context, changed);
  else
    for_server(context, changed);
  if (!changed.empty())
    context.note(plain_config.name,
                 fmt::format("adapter_config.json says {}", fmt::join(changed, ", ")));
}

}  // namespace

const FitStep plain_config = {
    "plain-config", "sglang, vllm, peft",
    "bias and modules_to_save that no tensor is left for; for PEFT's parameters, lora_dropout",
    run};

}  // namespace moelora::fit
