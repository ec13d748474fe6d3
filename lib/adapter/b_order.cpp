#include "lib/adapter/b_order.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <set>

#include "lib/base/dotted_path.h"

namespace moelora {
namespace {

using Text = std::string_view;

// unsloth_zoo 2026.10.9, temporary_patches/moe_utils.py (saved_lora_b_layouts,
// convert_legacy_lora_b): the model types whose unmarked adapters it reads as grouped by expert.
constexpr std::array<Text, 13> kGroupedBefore = {
    "deepseek_v3",   "ernie4_5_moe", "ernie4_5_vl_moe", "gemma4",  "glm4_moe",
    "glm4_moe_lite", "gpt_oss",      "lfm2_moe",        "mixtral", "qwen3_5_moe",
    "qwen3_moe",     "qwen3_next",   "qwen3_vl_moe"};

const Json* object_at(const Json& json, Text key) {
  const Json* value = json.is(Json::Kind::object) ? json.find(key) : nullptr;
  return value != nullptr && value->is(Json::Kind::object) ? value : nullptr;
}

bool is_stamped(const AdapterConfig& config) {
  const Json* mapping = object_at(config.json, "auto_mapping");
  const Json* stamp = mapping == nullptr ? nullptr : mapping->find("unsloth_fixed");
  return stamp != nullptr && stamp->is(Json::Kind::boolean) && stamp->as_bool() &&
         !config.target_parameters.empty();
}

// "qwen3_moe" of auto_mapping's "transformers.models.qwen3_moe.modeling_qwen3_moe"; "" where it
// says no model of transformers.
std::string library_of(const AdapterConfig& config) {
  const Json* mapping = object_at(config.json, "auto_mapping");
  const Json* library = mapping == nullptr ? nullptr : mapping->find("parent_library");
  if (library == nullptr || !library->is(Json::Kind::string)) return "";
  constexpr Text kModels = "transformers.models.", kCompiled = "unsloth_compiled_module_";
  const Text text = library->as_string();
  for (const Text begin : {kModels, kCompiled})
    if (const size_t at = text.find(begin); at != Text::npos) {
      const Text name = text.substr(at + begin.size());
      return std::string(name.substr(0, name.find('.')));
    }
  return "";
}

bool grouped_before(Text family) {
  return std::find(kGroupedBefore.begin(), kGroupedBefore.end(), family) != kGroupedBefore.end();
}

// Models of transformers that hold another family's text model (AutoModel of text_config).
constexpr std::array<Text, 9> kWrappers = {"aya_vision", "internvl",        "kimi_k25",
                                           "lfm2_vl",    "llava",           "llava_next",
                                           "mistral3",   "llava_onevision", "ovis2"};

// Unsloth goes by the class of the experts: that of the library, or in a wrapper that of the text
// model inside, which the base says. "" where nothing does.
std::string experts_family(const AdapterConfig& config, const ModelSpec* spec) {
  std::string library = library_of(config);
  const bool wraps = std::find(kWrappers.begin(), kWrappers.end(), library) != kWrappers.end();
  if (!library.empty() && !wraps) return library;
  return spec != nullptr ? spec->family : "";
}

ToldOrder by_stamp(const AdapterConfig& config, const ModelSpec* spec) {
  const std::string family = experts_family(config, spec);
  constexpr Text kStamp = "auto_mapping.unsloth_fixed is there and no \"lora_B_layout\"";
  if (family.empty())
    return {{},
            "",
            "",
            fmt::format("{}: Unsloth wrote it before it marked the order, which depends on the "
                        "model family, and no base model is known",
                        kStamp)};
  const BOrder order = grouped_before(family) ? BOrder::expert_major : BOrder::rank_major;
  return {order, "stamped",
          fmt::format("{}: read as Unsloth itself reads such an adapter of {}, {}", kStamp, family,
                      b_order_name(order)),
          ""};
}

// Whole paths, those of a layer sorted: down_proj before gate_up_proj; and none of the keys that
// PEFT always writes.
bool has_bridge_config(const AdapterConfig& config) {
  if (config.target_parameters.empty()) return false;
  for (const char* key : {"peft_version", "layers_to_transform", "megatron_core", "corda_config"})
    if (config.json.find(key) != nullptr) return false;
  const Json* mapping = config.json.find("auto_mapping");
  if (mapping != nullptr && !mapping->is(Json::Kind::null)) return false;
  std::set<std::string> layers;  // whose down_proj was named
  for (const std::string& path : config.target_parameters) {
    if (!find_layer(path)) return false;
    const std::string module(parent_of(path));
    const bool down = leaf_of(path) == "down_proj";
    if (down ? !layers.insert(module).second : layers.count(module) == 0) return false;
  }
  return true;
}

std::optional<BOrder> marked(const AdapterConfig& config, Text parameter) {
  for (const auto& [name, order] : config.parameter_b_orders)
    if (ends_in(parameter, name) || ends_in(name, parameter) ||
        ends_in(name, below_layer(parameter)))
      return order;
  return config.b_order;
}

}  // namespace

ToldOrder told_b_order(const AdapterConfig& config, const ModelSpec* spec,
                       std::string_view parameter, bool swapped) {
  if (const auto order = marked(config, parameter)) return {order, "marked", "", ""};
  if (config.mixed_b_orders)
    return {{},
            "",
            "",
            fmt::format("the markers of the order of lora_B's columns differ, by parameter or from "
                        "each other, and none is of {} alone",
                        parameter)};
  if (is_stamped(config)) return by_stamp(config, spec);
  if (swapped && has_bridge_config(config))
    return {BOrder::expert_major, "fingerprint",
            "the config is one that Megatron-Bridge up to 0.6.2 writes (whole paths, down_proj "
            "first, no peft_version, roles swapped): read as it packs lora_B, expert-major",
            ""};
  if (config.base_model.find("unsloth/") != std::string::npos)
    return {{},
            "",
            "",
            fmt::format("the base model is \"{}\" and there is no \"lora_B_layout\": Unsloth wrote "
                        "the columns of a stacked lora_B in either order, and nothing in the file "
                        "says which",
                        config.base_model)};
  return {};
}

}  // namespace moelora
