#include "tests/adapter/peft_model.h"

#include <cmath>
#include <regex>

namespace moelora::test {
namespace {

bool full_match(const std::string& text, const std::string& regex) {
  return std::regex_match(text, std::regex(regex));
}

// A list entry names a path that equals it, or ends with it after a dot; a string is a regex.
bool named(const Json* entries, const std::string& path) {
  if (entries == nullptr || entries->is(Json::Kind::null)) return false;
  if (entries->is(Json::Kind::string)) return full_match(path, entries->as_string());
  for (const Json& entry : entries->items())
    if (path == entry.as_string() || path.ends_with("." + entry.as_string())) return true;
  return false;
}

const Json* first_pattern(const Json* patterns, const std::string& path) {
  if (patterns == nullptr) return nullptr;
  for (const auto& [key, value] : patterns->members())
    if (full_match(path, "(.*\\.)?(" + key + ")")) return &value;
  return nullptr;
}

}  // namespace

std::set<std::string> wrapped_modules(const Json& config, const PeftModel& model) {
  std::set<std::string> out;
  for (const std::string& path : model.modules)
    if (!named(config.find("exclude_modules"), path) && named(config.find("target_modules"), path))
      out.insert(path);
  return out;
}

std::set<std::string> wrapped_parameters(const Json& config, const PeftModel& model) {
  std::set<std::string> out;
  for (const std::string& path : model.parameters)
    if (named(config.find("target_parameters"), path)) out.insert(path);
  return out;
}

RankAndScale rank_and_scale(const Json& config, const std::string& path) {
  const Json* rank = first_pattern(config.find("rank_pattern"), path);
  const Json* alpha = first_pattern(config.find("alpha_pattern"), path);
  const int64_t r = rank != nullptr ? rank->as_int() : config.find("r")->as_int();
  const double a = alpha != nullptr ? alpha->as_double() : config.find("lora_alpha")->as_double();
  const Json* rslora = config.find("use_rslora");
  const bool root = rslora != nullptr && rslora->as_bool();
  return {r, a / (root ? std::sqrt(static_cast<double>(r)) : static_cast<double>(r))};
}

}  // namespace moelora::test
