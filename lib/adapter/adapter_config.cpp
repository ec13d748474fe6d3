#include "lib/adapter/adapter_config.h"

#include <fmt/format.h>

#include <cmath>

#include "lib/base/error.h"
#include "lib/base/utf8.h"

namespace moelora {
namespace {

// Typed access to one config file; every mismatch names line, key, found and expected.
class Reader {
 public:
  Reader(const Json& json, const std::string& where) : json_(json), where_(where) {}

  const Json* get(std::string_view key) const {
    const Json* value = json_.find(key);
    return value == nullptr || value->is(Json::Kind::null) ? nullptr : value;
  }

  [[noreturn]] void mistyped(std::string_view key, const Json& value,
                             std::string_view expected) const {
    throw Error(place_of(value, where_),
                fmt::format("\"{}\" is {}, expected {}", key, value.kind_name(), expected));
  }

  const Json& required(std::string_view key) const {
    if (const Json* value = get(key)) return *value;
    throw Error(in_file(where_), fmt::format("\"{}\" is missing", key),
                fmt::format("add \"{}\" as the trainer used it", key));
  }

  bool boolean(std::string_view key) const {
    const Json* value = get(key);
    if (value == nullptr) return false;
    if (!value->is(Json::Kind::boolean)) mistyped(key, *value, "true or false");
    return value->as_bool();
  }

  std::string string(std::string_view key) const {
    const Json* value = get(key);
    if (value == nullptr) return {};
    if (!value->is(Json::Kind::string)) mistyped(key, *value, "a string");
    return value->as_string();
  }

  std::vector<std::string> strings(std::string_view key) const {
    const Json* value = get(key);
    if (value == nullptr) return {};
    if (!value->is(Json::Kind::array)) mistyped(key, *value, "an array of strings");
    std::vector<std::string> out;
    for (const Json& item : value->items()) {
      if (!item.is(Json::Kind::string)) mistyped(key, item, "a string");
      out.push_back(item.as_string());
    }
    return out;
  }

  int64_t positive_int(std::string_view key, const Json& value) const {
    if (!value.is(Json::Kind::integer)) mistyped(key, value, "an integer");
    if (value.as_int() <= 0)
      throw Error(place_of(value, where_),
                  fmt::format("\"{}\" is {}, expected a positive integer", key, value.as_int()));
    return value.as_int();
  }

  double number(std::string_view key, const Json& value) const {
    if (!value.is_number()) mistyped(key, value, "a number");
    return value.as_double();
  }

  const Json::Members& pattern(std::string_view key) const {
    static const Json::Members kNone;
    const Json* value = get(key);
    if (value == nullptr) return kNone;
    if (!value->is(Json::Kind::object)) mistyped(key, *value, "an object");
    return value->members();
  }

 private:
  const Json& json_;
  const std::string& where_;
};

void read_targets(const Reader& reader, AdapterConfig& config) {
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

void read_patterns(const Reader& reader, AdapterConfig& config) {
  for (const auto& [key, value] : reader.pattern("rank_pattern"))
    config.rank_pattern.add(key, reader.positive_int(entry("rank_pattern", key), value));
  for (const auto& [key, value] : reader.pattern("alpha_pattern"))
    config.alpha_pattern.add(key, reader.number(entry("alpha_pattern", key), value));
}

template <class T>
T marked(const Json& value, const std::string& where, std::string_view key,
         const std::optional<T>& parsed, std::string_view expected) {
  if (parsed) return *parsed;
  throw Error(place_of(value, where),
              fmt::format("\"{}\" is {}, expected {}", key, value.dump(-1), expected));
}

std::optional<BOrder> parse_unsloth_order(const std::string& text) {
  if (text == "rank_major") return BOrder::rank_major;
  if (text == "grouped_by_expert") return BOrder::expert_major;
  return std::nullopt;
}

void read_markers(const Reader& reader, AdapterConfig& config) {
  if (const Json* marker = reader.get("lora_B_layout"))
    config.b_order = marked(*marker, config.where, "lora_B_layout",
                            parse_unsloth_order(reader.string("lora_B_layout")),
                            "\"rank_major\" or \"grouped_by_expert\"");
  const Json* ours = reader.get("moelora");
  if (ours == nullptr) return;
  if (!ours->is(Json::Kind::object)) reader.mistyped("moelora", *ours, "an object");
  const Reader mine(*ours, config.where);
  config.layout = mine.string("layout");
  config.gate_up_order = mine.string("gate_up_order");
  if (const Json* value = mine.get("b_order"))
    config.b_order =
        marked(*value, config.where, "moelora.b_order", parse_b_order(mine.string("b_order")),
               "\"rank-major\" or \"expert-major\"");
  if (const Json* value = mine.get("roles"))
    config.roles = marked(*value, config.where, "moelora.roles", parse_roles(mine.string("roles")),
                          "\"natural\" or \"swapped\"");
}

// A key that cannot be evaluated, with its place in the file.
[[noreturn]] void refuse_pattern(const AdapterConfig& config, std::string_view name,
                                 const std::string& key, const Error& error) {
  const Json* all = config.json.find(name);
  const Json* value = all == nullptr ? nullptr : all->find(key);
  throw Error(value == nullptr ? in_file(config.where) : place_of(*value, config.where),
              fmt::format("\"{}\": {}", entry(name, key), error.text()), error.advice());
}

template <class T>
const T* first_match(const AdapterConfig& config, std::string_view name,
                     const PatternTable<T>& patterns, const std::string& path) {
  try {
    return patterns.find(path);
  } catch (const Error& error) {
    refuse_pattern(config, name, error.where(), error);
  }
}

}  // namespace

AdapterConfig::AdapterConfig() = default;
AdapterConfig::AdapterConfig(const AdapterConfig&) = default;
AdapterConfig::AdapterConfig(AdapterConfig&&) noexcept = default;
AdapterConfig& AdapterConfig::operator=(const AdapterConfig&) = default;
AdapterConfig& AdapterConfig::operator=(AdapterConfig&&) noexcept = default;
AdapterConfig::~AdapterConfig() = default;

std::string_view b_order_name(BOrder order) {
  return order == BOrder::rank_major ? "rank-major" : "expert-major";
}

std::string_view roles_name(Roles roles) { return roles == Roles::natural ? "natural" : "swapped"; }

std::optional<BOrder> parse_b_order(std::string_view text) {
  if (text == "rank-major") return BOrder::rank_major;
  if (text == "expert-major") return BOrder::expert_major;
  return std::nullopt;
}

std::optional<Roles> parse_roles(std::string_view text) {
  if (text == "natural") return Roles::natural;
  if (text == "swapped") return Roles::swapped;
  return std::nullopt;
}

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
  const Reader reader(config.json, config.where);
  if (const std::string type = reader.string("peft_type"); !type.empty() && type != "LORA")
    throw Error(place_of(*reader.get("peft_type"), where),
                fmt::format("\"peft_type\" is \"{}\", expected \"LORA\"", type));
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

AdapterConfig read_adapter_config(const std::string& path) {
  return parse_adapter_config(read_json_file(path), path);
}

}  // namespace moelora
