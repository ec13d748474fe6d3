#include "lib/adapter/config/adapter_config.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>

#include "lib/adapter/config/config_reader.h"
#include "lib/adapter/names/config_kinds.h"
#include "lib/base/error.h"
#include "lib/base/utf8.h"

namespace moelora {
namespace {

using TwoNames = std::array<std::string_view, 2>;  // of the values of an enumeration, in order
constexpr TwoNames kOrders = {"rank-major", "expert-major"},
                   kUnslothOrders = {"rank_major", "grouped_by_expert"},
                   kRoles = {"natural", "swapped"};

template <class T>
std::optional<T> named(const TwoNames& names, std::string_view name) {
  const auto at = std::find(names.begin(), names.end(), name);
  return at == names.end() ? std::nullopt : std::optional(static_cast<T>(at - names.begin()));
}

// One of two names of an enumeration's values; `shown` is the key in messages.
template <class T>
std::optional<T> marker(const ConfigReader& reader, std::string_view key, std::string_view shown,
                        const TwoNames& names) {
  const std::string word = reader.string(key);
  const Json* value = reader.get(key);
  if (value == nullptr) return std::nullopt;
  if (const auto named_value = named<T>(names, word)) return named_value;
  throw Error(place_of(*value, reader.where()),
              fmt::format("\"{}\" is {}, expected \"{}\" or \"{}\"", shown, value->dump(-1),
                          names[0], names[1]));
}

void read_targets(const ConfigReader& reader, AdapterConfig& config) {
  const Json* targets = reader.get("target_modules");
  if (targets != nullptr && targets->is(Json::Kind::string))
    config.target_regex = targets->as_string();
  else
    config.target_modules = reader.strings("target_modules");
  config.target_parameters = reader.strings("target_parameters");
  config.modules_to_save = reader.strings("modules_to_save");
}

// How messages name one entry of a pattern, between quotes: "rank_pattern" of "q_proj".
std::string entry(std::string_view pattern, const std::string& key) {
  return fmt::format("{}\" of \"{}", pattern, printable(key));
}

void read_patterns(const ConfigReader& reader, AdapterConfig& config) {
  for (const auto& [key, value] : reader.pattern("rank_pattern"))
    config.rank_pattern.add(key, reader.positive_int(entry("rank_pattern", key), value));
  for (const auto& [key, value] : reader.pattern("alpha_pattern"))
    config.alpha_pattern.add(key, reader.number(entry("alpha_pattern", key), value));
}

// The markers of the order in one object of the config: Unsloth's flat one, its nested one with an
// entry a parameter, and ours.
class OrderMarkers {
 public:
  explicit OrderMarkers(AdapterConfig& config) : config_(config) {}

  void read(const Json& json) {
    const ConfigReader reader(json, config_.where);
    add(flat(reader));
    if (const Json* nested =
            reader.get("unsloth_fused_expert_lora", Json::Kind::object, "an object"))
      read_nested(*nested);
  }

  void add(std::optional<BOrder> order) {
    if (order) all_.push_back(*order);
  }

  // A parameter's own entry counts before what is said of all: Unsloth reads them so, and a marker
  // of ours that another writer carried along is the older one.
  void finish() {
    const auto& apart = config_.parameter_b_orders;
    std::vector<BOrder> said = all_;
    for (const auto& entry : apart) said.push_back(entry.second);
    const bool same =
        std::all_of(said.begin(), said.end(), [&](BOrder order) { return order == said.front(); });
    config_.mixed_b_orders = mixed_ || !same;
    if (!said.empty() && !config_.mixed_b_orders) config_.b_order = said.front();
  }

 private:
  static std::optional<BOrder> flat(const ConfigReader& reader) {
    return marker<BOrder>(reader, "lora_B_layout", "lora_B_layout", kUnslothOrders);
  }

  // "mixed": it differs below.
  std::optional<BOrder> flat_or_mixed(const Json& json) {
    const ConfigReader reader(json, config_.where);
    const Json* word = reader.get("lora_B_layout");
    const bool mixed =
        word != nullptr && word->is(Json::Kind::string) && word->as_string() == "mixed";
    mixed_ = mixed_ || mixed;
    return mixed ? std::nullopt : flat(reader);
  }

  void read_nested(const Json& nested) {
    add(flat_or_mixed(nested));
    const Json* parameters =
        ConfigReader(nested, config_.where).get("parameters", Json::Kind::object, "an object");
    if (parameters == nullptr) return;
    for (const auto& [name, entry] : parameters->members())
      if (entry.is(Json::Kind::object))
        if (const auto order = flat_or_mixed(entry))
          config_.parameter_b_orders.emplace_back(name, *order);
  }

  AdapterConfig& config_;
  std::vector<BOrder> all_;
  bool mixed_ = false;
};

void read_ours(const Json& ours, AdapterConfig& config, OrderMarkers& orders) {
  const ConfigReader mine(ours, config.where);
  config.layout = mine.string("layout");
  config.gate_up_order = mine.string("gate_up_order");
  orders.add(marker<BOrder>(mine, "b_order", "moelora.b_order", kOrders));
  config.roles = marker<Roles>(mine, "roles", "moelora.roles", kRoles);
}

// At the top level, where we wrote ours until 2026-11 and PEFT warns of unexpected keys, and in
// auto_mapping, which PEFT carries along.
void read_markers(const ConfigReader& reader, AdapterConfig& config) {
  OrderMarkers orders(config);
  orders.read(config.json);
  const Json* ours = reader.get("moelora", Json::Kind::object, "an object");
  if (const Json* mapping = reader.get("auto_mapping");
      mapping != nullptr && mapping->is(Json::Kind::object)) {
    orders.read(*mapping);
    if (ours == nullptr)
      ours = ConfigReader(*mapping, config.where).get("moelora", Json::Kind::object, "an object");
  }
  if (ours != nullptr) read_ours(*ours, config, orders);
  orders.finish();
}

// Throws Error for a key that cannot be evaluated, with its place in the file.
template <class T>
const T* first_match(const AdapterConfig& config, std::string_view name,
                     const PatternTable<T>& patterns, const std::string& path) {
  try {
    return patterns.find(path);
  } catch (const Error& error) {
    const std::string key = error.where();
    const Json* all = config.json.find(name);
    const Json* value = all == nullptr ? nullptr : all->find(key);
    throw Error(value == nullptr ? in_file(config.where) : place_of(*value, config.where),
                fmt::format("\"{}\": {}", entry(name, key), error.text()), error.advice());
  }
}

void refuse_mlx(const Json& config, const std::string& where) {
  if (!is_mlx_config(config)) return;
  throw Error(in_file(where),
              "is the config of an MLX adapter (fine_tune_type, lora_parameters), not PEFT's",
              "lora-convert reads the folder and writes PEFT's");
}

}  // namespace

AdapterConfig::AdapterConfig() = default;
AdapterConfig::AdapterConfig(const AdapterConfig&) = default;
AdapterConfig::AdapterConfig(AdapterConfig&&) noexcept = default;
AdapterConfig& AdapterConfig::operator=(const AdapterConfig&) = default;
AdapterConfig& AdapterConfig::operator=(AdapterConfig&&) noexcept = default;
AdapterConfig::~AdapterConfig() = default;

std::string_view b_order_name(BOrder order) { return kOrders[static_cast<size_t>(order)]; }
std::string_view roles_name(Roles roles) { return kRoles[static_cast<size_t>(roles)]; }
std::optional<BOrder> parse_b_order(std::string_view text) { return named<BOrder>(kOrders, text); }
std::optional<Roles> parse_roles(std::string_view text) { return named<Roles>(kRoles, text); }

Scaling AdapterConfig::scaling(const std::string& path) const {
  const int64_t* rank = first_match(*this, "rank_pattern", rank_pattern, path);
  const double* alpha = first_match(*this, "alpha_pattern", alpha_pattern, path);
  return {rank != nullptr ? *rank : r, alpha != nullptr ? *alpha : lora_alpha, use_rslora};
}

AdapterConfig parse_adapter_config(Json json, const std::string& where) {
  if (!json.is(Json::Kind::object))
    throw Error(place_of(json, where), fmt::format("is {}, expected an object", json.kind_name()));
  AdapterConfig config;
  config.json = std::move(json);
  config.where = where;
  const ConfigReader reader(config.json, config.where);
  if (const std::string type = reader.string("peft_type"); !type.empty() && type != "LORA")
    throw Error(place_of(*reader.get("peft_type"), where),
                fmt::format("\"peft_type\" is \"{}\", expected \"LORA\"", printable(type)),
                "servers compute plain LoRA alone: merge it with PEFT's merge_and_unload and serve "
                "that model");
  refuse_mlx(config.json, where);
  config.r = reader.positive_int("r", reader.required("r"));
  config.lora_alpha = reader.number("lora_alpha", reader.required("lora_alpha"));
  config.use_rslora = reader.boolean("use_rslora");
  config.use_dora = reader.boolean("use_dora");
  config.lora_bias = reader.boolean("lora_bias");
  config.fan_in_fan_out = reader.boolean("fan_in_fan_out");
  config.base_model = reader.string("base_model_name_or_path");
  config.peft_version = reader.string("peft_version");
  if (const Json* init = reader.get("init_lora_weights");
      init != nullptr && init->is(Json::Kind::string))
    config.init_lora_weights = init->as_string();
  read_targets(reader, config);
  read_patterns(reader, config);
  read_markers(reader, config);
  return config;
}

}  // namespace moelora
