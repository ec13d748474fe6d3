#include "lib/model/layer_choice.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "lib/base/error.h"

namespace moelora {
namespace {

std::optional<Dimension> find_dimension(const JsonView& json, std::string_view key) {
  const auto found = json.find(key);
  if (!found) return std::nullopt;
  if (found->json().is(Json::Kind::integer)) return Dimension(found->integer());
  return Dimension::parse(found->string(), found->where());
}

std::string find_string(const JsonView& json, std::string_view key) {
  const auto found = json.find(key);
  return found ? found->string() : std::string();
}

// One entry a layer: an array of strings, or a string of one character a layer.
std::vector<std::string> pattern_entries(const JsonView& json) {
  if (!json.json().is(Json::Kind::string)) return json.strings();
  std::vector<std::string> out;
  for (const char c : json.string()) out.emplace_back(1, c);
  return out;
}

std::vector<bool> from_pattern(const JsonView& json, const std::vector<std::string>& values,
                               int64_t count) {
  const auto entries = pattern_entries(json);
  if (static_cast<int64_t>(entries.size()) != count) {
    json.fail(fmt::format("has {} entries, but the model has {} layers", entries.size(), count));
  }
  std::vector<bool> out;
  for (const std::string& entry : entries) {
    out.push_back(std::find(values.begin(), values.end(), entry) != values.end());
  }
  return out;
}

std::vector<bool> from_list(const JsonView& json, int64_t count) {
  std::vector<bool> out(static_cast<size_t>(count));
  for (const JsonView& item : json.items()) {
    const int64_t layer = item.integer();
    if (layer < 0 || layer >= count) {
      item.fail(fmt::format("layer {} is not one of the model's {} layers", layer, count));
    }
    out[static_cast<size_t>(layer)] = true;
  }
  return out;
}

}  // namespace

LayerChoice::Rule LayerChoice::parse_rule(const JsonView& json) {
  if (json.json().is(Json::Kind::string)) {
    json.one_of({"all"});
    return {};
  }
  json.allow_only({"from", "to", "every", "first", "list", "except", "pattern", "values"});
  Rule rule = {find_dimension(json, "from"),  find_dimension(json, "to"),
               find_dimension(json, "every"), find_dimension(json, "first"),
               find_string(json, "list"),     find_string(json, "except"),
               find_string(json, "pattern"),  {}};
  if (!rule.pattern.empty()) rule.values = json.at("values").one_or_more_strings();
  if (rule.first && !rule.every) json.fail("\"first\" says nothing without \"every\"");
  return rule;
}

LayerChoice LayerChoice::parse(const JsonView& json) {
  LayerChoice out;
  out.rules_.clear();
  if (!json.json().is(Json::Kind::array)) {
    out.rules_.push_back(parse_rule(json));
    return out;
  }
  for (const JsonView& item : json.items()) out.rules_.push_back(parse_rule(item));
  if (out.rules_.empty()) json.fail("found no alternative, expected at least one");
  return out;
}

bool LayerChoice::applies(const Rule& rule, const FindKey& config) {
  if (!rule.pattern.empty()) return config(rule.pattern).has_value();
  return rule.list.empty() || config(rule.list).has_value();
}

std::vector<bool> LayerChoice::layers(int64_t count, const Values& values, const FindKey& config,
                                      const std::string& family) const {
  const auto rule =
      std::find_if(rules_.begin(), rules_.end(), [&](const Rule& r) { return applies(r, config); });
  if (rule == rules_.end()) {
    std::vector<std::string> keys;
    for (const Rule& r : rules_) keys.push_back(r.pattern.empty() ? r.list : r.pattern);
    config("")->fail(fmt::format("none of these keys is there: {}", fmt::join(keys, ", ")));
  }
  if (!rule->pattern.empty()) return from_pattern(*config(rule->pattern), rule->values, count);

  const auto number = [&](const std::optional<Dimension>& d, int64_t otherwise) {
    return d ? d->value(values, family) : otherwise;
  };
  const int64_t from = number(rule->from, 0), step = number(rule->every, 1);
  int64_t last = number(rule->to, -1);
  if (last < 0) last = count - 1;
  if (step < 1)
    config("")->fail(
        fmt::format("\"{}\" is {}, but layers come every 1 or more", rule->every->text(), step));
  const int64_t first = number(rule->first, step - 1);

  std::vector<bool> out(static_cast<size_t>(count), true);
  if (!rule->list.empty()) out = from_list(*config(rule->list), count);
  const auto except = rule->except.empty() ? std::nullopt : config(rule->except);
  const std::vector<bool> excluded =
      except ? from_list(*except, count) : std::vector<bool>(out.size());
  for (int64_t i = 0; i < count; ++i) {
    const auto at = static_cast<size_t>(i);
    out[at] =
        out[at] && !excluded[at] && i >= from && i <= last && i >= first && (i - first) % step == 0;
  }
  return out;
}

std::vector<std::string> LayerChoice::value_names() const {
  std::vector<std::string> out;
  for (const Rule& rule : rules_) {
    for (const auto* d : {&rule.from, &rule.to, &rule.every, &rule.first}) {
      if (!*d) continue;
      for (std::string& name : (*d)->names()) out.push_back(std::move(name));
    }
  }
  return out;
}

}  // namespace moelora
