#include "lib/model/model_config.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "lib/base/error.h"
#include "lib/model/value_functions.h"

namespace moelora {
namespace {

constexpr int64_t kMaxValue = int64_t{1} << 40;

int64_t scalar(const JsonView& json) {
  if (json.json().is(Json::Kind::boolean)) return json.boolean() ? 1 : 0;
  const int64_t value = json.integer();
  if (value < -1 || value > kMaxValue)
    json.fail(fmt::format("found {}, expected -1 to {}", value, kMaxValue));
  return value;
}

int64_t integer_value(const JsonView& json) {
  if (!json.json().is(Json::Kind::array)) return scalar(json);
  const auto items = json.items();
  if (items.empty()) json.fail("found an empty array, expected an integer");
  const int64_t first = scalar(items.front());
  for (const JsonView& item : items) {
    if (scalar(item) != first)
      item.fail(
          fmt::format("found {} after {}, expected the same for all layers", scalar(item), first));
  }
  return first;
}

bool is_auto(const JsonView& json) {
  return json.json().is(Json::Kind::string) && json.string() == "auto";
}

}  // namespace

ModelConfig::ModelConfig(const Json& config, const std::string& where, const std::string& nested)
    : top_(config, where), nested_(nested.empty() ? top_ : top_.at(nested)) {}

std::optional<JsonView> ModelConfig::find(const std::string& key) const {
  if (key.empty()) return nested_;
  auto found = nested_.find(key);
  return found ? found : top_.find(key);
}

FindKey ModelConfig::finder() const {
  return [this](const std::string& key) { return find(key); };
}

std::optional<int64_t> ModelConfig::given(const ValueRule& rule) const {
  for (const std::string& key : rule.keys) {
    const auto found = find(key);
    if (!found || (!rule.function.empty() && is_auto(*found))) continue;
    return integer_value(*found);
  }
  for (const std::string& key : rule.lengths) {
    const auto found = find(key);
    if (!found) continue;
    if (found->json().is(Json::Kind::string)) return static_cast<int64_t>(found->string().size());
    return static_cast<int64_t>(found->items().size());
  }
  return std::nullopt;
}

int64_t ModelConfig::value(const ValueRule& rule, const Values& before,
                           const std::string& family) const {
  if (const auto found = given(rule)) return *found;
  if (rule.otherwise) return rule.otherwise->value(before, nested_.where());
  if (!rule.function.empty()) return value_function(rule.function, before);
  std::vector<std::string> keys = rule.keys;
  keys.insert(keys.end(), rule.lengths.begin(), rule.lengths.end());
  nested_.fail(fmt::format("the key \"{}\" is missing, which a {} model needs",
                           fmt::join(keys, "\" or \""), family));
}

Values ModelConfig::values(const std::vector<ValueRule>& rules, const std::string& family) const {
  Values out;
  for (const ValueRule& rule : rules) out[rule.name] = value(rule, out, family);
  return out;
}

std::string ModelConfig::string(const std::vector<std::string>& keys,
                                const std::string& otherwise) const {
  for (const std::string& key : keys) {
    if (const auto found = find(key)) return found->string();
  }
  return otherwise;
}

}  // namespace moelora
