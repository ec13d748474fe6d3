#include "lib/forward/family_section.h"

#include <fmt/format.h>

#include <cmath>

namespace moelora {
namespace {

JsonView root_of(const BaseModel& base) {
  if (base.spec.forward) return {base.spec.forward->section, base.spec.family_file, "/forward"};
  throw Error(base.origin,
              fmt::format("how models of the family {} compute is not described", base.spec.family),
              Hint(fmt::format("add a section \"forward\" to {} (CONTRIBUTING.md)",
                               base.spec.family_file)));
}

std::optional<JsonView> find_path(const JsonView& json, std::string_view path) {
  const size_t dot = path.find('.');
  const auto found = json.json().is(Json::Kind::object) ? json.find(path.substr(0, dot))
                                                        : std::optional<JsonView>();
  return !found || dot == std::string_view::npos ? found : find_path(*found, path.substr(dot + 1));
}

// Of a word of the config, by the family's "words".
double number_of(const JsonView& word, const JsonView& words) {
  if (const auto found = words.find(word.string())) return config_number(*found);
  word.fail(fmt::format("unknown word '{}', which a family's \"forward\" does not describe",
                        word.string()));
}

}  // namespace

double config_number(const JsonView& json) {
  if (json.json().is(Json::Kind::boolean)) return json.boolean() ? 1 : 0;
  if (!json.json().is_number()) json.fail_kind("a number");
  return json.json().as_double();
}

FamilySection::FamilySection(const BaseModel& base) : base_(&base), json_(root_of(base)) {}

std::optional<JsonView> FamilySection::config(std::string_view key) const {
  const JsonView top(base_->config, base_->origin);
  const std::string& path = facts().config_path;
  const auto nested = path.empty() ? std::optional<JsonView>(top) : find_path(top, path);
  auto found = nested ? find_path(*nested, key) : std::nullopt;
  return found ? found : find_path(top, key);
}

std::optional<FamilySection> FamilySection::find(std::string_view key) const {
  auto found = json_.find(key);
  if (!found) return std::nullopt;
  found->members();
  return FamilySection(*base_, *std::move(found));
}

std::vector<FamilySection> FamilySection::list(std::string_view key) const {
  std::vector<FamilySection> out;
  if (const auto found = json_.find(key))
    for (JsonView& item : found->items()) out.push_back({*base_, std::move(item)});
  return out;
}

std::string FamilySection::text(std::string_view key, std::string_view otherwise) const {
  const auto found = json_.find(key);
  return found ? found->string() : std::string(otherwise);
}

size_t FamilySection::one_of(std::string_view key,
                             std::initializer_list<std::string_view> choices) const {
  const auto found = json_.find(key);
  return found ? found->one_of(choices) : 0;
}

double FamilySection::rule(const JsonView& json) const {
  if (json.json().is_number()) return json.json().as_double();
  if (json.json().is(Json::Kind::string)) {
    if (const auto found = config(json.string())) return config_number(*found);
    throw Error(base_->origin, fmt::format("the key \"{}\" is missing, which a {} model needs",
                                           json.string(), spec().family));
  }
  json.allow_only({"keys", "words", "value", "default", "power", "times"});
  std::optional<double> value;
  const auto words = json.find("words");
  const auto size_of = [&](const JsonView& text) {
    return static_cast<double>(Dimension::parse(text).value(facts().values, text.where()));
  };
  if (const auto own = json.find("value")) {
    json.allow_only({"value", "power", "times"});
    value = size_of(*own);
  } else {
    for (const std::string& key : json.at("keys").strings())
      if (const auto found = value ? std::nullopt : config(key))
        value = words ? number_of(*found, *words) : config_number(*found);
  }
  if (!value) {
    const auto otherwise = json.find("default");
    if (!otherwise) json.fail("the config has none of these keys, and there is no default");
    value = rule(*otherwise);
  }
  if (const auto power = json.find("power")) value = std::pow(*value, config_number(*power));
  if (const auto times = json.find("times")) *value *= size_of(*times);
  return *value;
}

double FamilySection::number(std::string_view key, double otherwise) const {
  const auto found = json_.find(key);
  return found ? rule(*found) : otherwise;
}

int64_t FamilySection::size(std::string_view key, int64_t otherwise) const {
  const auto found = json_.find(key);
  if (found && found->json().is(Json::Kind::object)) return static_cast<int64_t>(rule(*found));
  return found ? Dimension::parse(*found).value(facts().values, found->where()) : otherwise;
}

bool FamilySection::flag(std::string_view key, bool otherwise) const {
  const auto found = json_.find(key);
  if (!found) return otherwise;
  if (found->json().is(Json::Kind::boolean)) return found->boolean();
  if (found->json().is(Json::Kind::object)) return rule(*found) != 0;
  return Dimension::parse(*found).value(facts().values, found->where()) != 0;
}

std::vector<bool> FamilySection::layers(std::string_view key, bool otherwise) const {
  const int64_t count = spec().layers;
  const auto found = json_.find(key);
  if (!found) return std::vector<bool>(static_cast<size_t>(count), otherwise);
  const bool is_word = found->json().is(Json::Kind::string) && found->string() != "all";
  if (!is_word) {
    const FindKey find_key = [this](const std::string& name) { return config(name); };
    return LayerChoice::parse(*found).layers(count, facts().values, find_key, spec().family_file);
  }
  std::string name = found->string();
  const bool is_not = name.starts_with("not ");
  if (is_not) name.erase(0, 4);
  const auto choice = facts().choices.find(name);
  if (choice == facts().choices.end())
    found->fail(fmt::format("no layer choice is called \"{}\"", name));
  std::vector<bool> out = choice->second;
  if (is_not) out.flip();
  return out;
}

void FamilySection::fail(std::string_view key, const std::string& what) const {
  json_.at(key).fail(what);
}

}  // namespace moelora
