#include "lib/check/json_schema_subset.h"

#include <fmt/core.h>

#include <algorithm>

#include "lib/base/utf8.h"
#include "lib/check/embedded_config_schema.h"

namespace moelora {
namespace {

constexpr size_t kMostFaults = 50;

bool is_of_type(const Json& value, std::string_view type) {
  switch (value.kind()) {
    case Json::Kind::null:
      return type == "null";
    case Json::Kind::boolean:
      return type == "boolean";
    case Json::Kind::integer:
      return type == "integer" || type == "number";
    case Json::Kind::real:
      return type == "number";
    case Json::Kind::string:
      return type == "string";
    case Json::Kind::array:
      return type == "array";
    case Json::Kind::object:
      return type == "object";
  }
  return false;
}

std::string article(const std::string& type) {
  if (type == "null") return type;
  const bool vowel = type[0] == 'a' || type[0] == 'i' || type[0] == 'o';
  return (vowel ? "an " : "a ") + type;
}

std::vector<std::string> types_of(const Json& type) {
  if (type.is(Json::Kind::string)) return {type.as_string()};
  std::vector<std::string> out;
  for (const Json& item : type.items()) out.push_back(item.as_string());
  return out;
}

std::string shown(const Json& value) { return printable(value.dump(-1), 60); }

class Checker {
 public:
  explicit Checker(const Json& root) : root_(root) {}

  void check(const Json& value, const Json& given, const std::string& path) {
    if (out_.size() >= kMostFaults) return;
    const Json& schema = resolved(given);
    if (const Json* any = schema.find("oneOf")) check_any(value, *any, path);
    if (!check_type(value, schema, path)) return;
    check_choice(value, schema, path);
    if (const Json* least = schema.find("minimum");
        least != nullptr && value.is_number() && value.as_double() < least->as_double())
      fault(value, path, fmt::format("is {}, expected {} at least", shown(value), shown(*least)));
    if (value.is(Json::Kind::object)) check_members(value, schema, path);
    if (value.is(Json::Kind::array)) check_items(value, schema, path);
  }

  std::vector<SchemaFault> take() { return std::move(out_); }

 private:
  // One step is enough: a definition that is only a reference goes on resolving.
  const Json& resolved(const Json& schema) const {
    const Json* at = &schema;
    for (int depth = 0; depth < 8; ++depth) {
      const Json* ref = at->find("$ref");
      if (ref == nullptr) break;
      const Json* defs = root_.find("$defs");
      at = defs->find(ref->as_string().substr(std::string("#/$defs/").size()));
    }
    return *at;
  }

  void fault(const Json& value, const std::string& path, std::string message) {
    out_.push_back({path.substr(0, path.find_first_of(".[")), path, std::move(message), &value});
  }

  bool check_type(const Json& value, const Json& schema, const std::string& path) {
    const Json* type = schema.find("type");
    if (type == nullptr) return true;
    const std::vector<std::string> types = types_of(*type);
    if (std::any_of(types.begin(), types.end(),
                    [&](const std::string& t) { return is_of_type(value, t); }))
      return true;
    std::string expected;
    for (const std::string& t : types)
      expected += (expected.empty() ? "" : &t == &types.back() ? " or " : ", ") + article(t);
    fault(value, path, fmt::format("is {}, expected {}", value.kind_name(), expected));
    return false;
  }

  void check_choice(const Json& value, const Json& schema, const std::string& path) {
    if (const Json* one = schema.find("const"); one != nullptr && !(value == *one))
      fault(value, path, fmt::format("is {}, expected {}", shown(value), shown(*one)));
    const Json* some = schema.find("enum");
    if (some == nullptr) return;
    const auto& items = some->items();
    if (std::find(items.begin(), items.end(), value) == items.end())
      fault(value, path, fmt::format("is {}, expected one of {}", shown(value), shown(*some)));
  }

  void check_any(const Json& value, const Json& any, const std::string& path) {
    std::vector<SchemaFault> closest;
    for (const Json& schema : any.items()) {
      Checker alone(root_);
      alone.check(value, schema, path);
      std::vector<SchemaFault> found = alone.take();
      if (found.empty()) return;
      // What is wrong deeper inside came closer to fitting.
      if (closest.empty() || found.front().path.size() > closest.front().path.size())
        closest = std::move(found);
    }
    out_.insert(out_.end(), closest.begin(), closest.end());
  }

  void check_members(const Json& value, const Json& schema, const std::string& path) {
    const std::string prefix = path.empty() ? "" : path + ".";
    if (const Json* required = schema.find("required"))
      for (const Json& key : required->items())
        if (value.find(key.as_string()) == nullptr)
          fault(value, prefix + key.as_string(), "is missing");
    const Json* properties = schema.find("properties");
    const Json* others = schema.find("additionalProperties");
    for (const auto& [key, member] : value.members()) {
      const Json* known = properties != nullptr ? properties->find(key) : nullptr;
      if (known == nullptr) known = others;
      if (known != nullptr) check(member, *known, prefix + printable(key));
    }
  }

  void check_items(const Json& value, const Json& schema, const std::string& path) {
    const auto count = static_cast<int64_t>(value.items().size());
    const Json *least = schema.find("minItems"), *most = schema.find("maxItems");
    if ((least != nullptr && count < least->as_int()) ||
        (most != nullptr && count > most->as_int()))
      fault(value, path, fmt::format("has {} items", count));
    const Json* items = schema.find("items");
    if (items == nullptr) return;
    for (size_t i = 0; i < value.items().size(); ++i)
      check(value.items()[i], *items, fmt::format("{}[{}]", path, i));
  }

  const Json& root_;
  std::vector<SchemaFault> out_;
};

}  // namespace

std::vector<SchemaFault> check_schema(const Json& value, const Json& schema) {
  Checker checker(schema);
  checker.check(value, schema, "");
  return checker.take();
}

const Json& adapter_config_schema() {
  static const Json kSchema =
      parse_json(embedded_config_schema().front().second, "schemas/adapter_config.schema.json");
  return kSchema;
}

}  // namespace moelora
