#include "lib/model/json_view.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

#include "lib/base/error.h"

namespace moelora {

JsonView::JsonView(const Json& json, std::string file, std::string path)
    : json_(&json), file_(std::move(file)), path_(std::move(path)) {}

JsonView JsonView::child(const Json& json, std::string_view step) const {
  return JsonView(json, file_, fmt::format("{}/{}", path_, step));
}

std::optional<JsonView> JsonView::find(std::string_view key) const {
  const Json* found = require(Json::Kind::object, "an object").find(key);
  if (found == nullptr || found->is(Json::Kind::null)) return std::nullopt;
  return child(*found, key);
}

JsonView JsonView::at(std::string_view key) const {
  if (auto found = find(key)) return *found;
  fail(fmt::format("the key \"{}\" is missing", key));
}

std::vector<JsonView> JsonView::items() const {
  std::vector<JsonView> out;
  for (const Json& item : require(Json::Kind::array, "an array").items())
    out.push_back(child(item, std::to_string(out.size())));
  return out;
}

std::vector<std::pair<std::string, JsonView>> JsonView::members() const {
  std::vector<std::pair<std::string, JsonView>> out;
  for (const auto& [key, value] : require(Json::Kind::object, "an object").members())
    out.emplace_back(key, child(value, key));
  return out;
}

const std::string& JsonView::string() const {
  return require(Json::Kind::string, "a string").as_string();
}

int64_t JsonView::integer() const { return require(Json::Kind::integer, "an integer").as_int(); }

bool JsonView::boolean() const { return require(Json::Kind::boolean, "true or false").as_bool(); }

std::vector<std::string> JsonView::strings() const {
  std::vector<std::string> out;
  for (const JsonView& item : items()) out.push_back(item.string());
  return out;
}

std::vector<std::string> JsonView::one_or_more_strings() const {
  if (json_->is(Json::Kind::string)) return {json_->as_string()};
  if (!json_->is(Json::Kind::array)) fail_kind("a string or an array of strings");
  return strings();
}

std::string JsonView::string_or_empty(std::string_view key) const {
  const auto found = find(key);
  return found ? found->string() : std::string();
}

bool JsonView::is_true(std::string_view key) const {
  const auto found = find(key);
  return found && found->boolean();
}

std::vector<std::string> JsonView::strings_or_none(std::string_view key) const {
  const auto found = find(key);
  return found ? found->strings() : std::vector<std::string>();
}

std::vector<std::pair<std::string, std::string>> JsonView::string_members(
    std::string_view key) const {
  std::vector<std::pair<std::string, std::string>> out;
  if (const auto found = find(key))
    for (const auto& [name, value] : found->members()) out.emplace_back(name, value.string());
  return out;
}

size_t JsonView::one_of(std::initializer_list<std::string_view> choices) const {
  const auto found = std::find(choices.begin(), choices.end(), std::string_view(string()));
  if (found == choices.end())
    fail(fmt::format("found \"{}\", expected one of: {}", string(), fmt::join(choices, ", ")));
  return static_cast<size_t>(found - choices.begin());
}

void JsonView::allow_only(std::initializer_list<std::string_view> keys) const {
  for (const auto& [key, value] : members()) {
    if (std::find(keys.begin(), keys.end(), std::string_view(key)) != keys.end()) continue;
    value.fail(fmt::format("unknown key, expected one of: {}", fmt::join(keys, ", ")));
  }
}

const Json& JsonView::require(Json::Kind kind, std::string_view expected) const {
  if (!json_->is(kind)) fail_kind(expected);
  return *json_;
}

Location JsonView::place() const { return place_of(*json_, file_); }

void JsonView::fail(const std::string& what, const std::string& hint) const {
  throw Error(place(), path_.empty() ? what : path_ + ": " + what, hint);
}

void JsonView::fail_kind(std::string_view expected) const {
  fail(fmt::format("found {}, expected {}", json_->kind_name(), expected));
}

}  // namespace moelora
