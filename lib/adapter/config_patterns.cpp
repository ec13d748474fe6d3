#include "lib/adapter/config_patterns.h"

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <set>
#include <string>

namespace moelora {
namespace {

// The shortest name a pattern key may have: a module's leaf, a parameter's last two components.
std::string short_key(const ExpertTarget& target) {
  const size_t dot = target.path.rfind('.');
  if (dot == std::string::npos || !target.parameter) return target.path.substr(dot + 1);
  const size_t before = target.path.rfind('.', dot - 1);
  return target.path.substr(before == std::string::npos ? 0 : before + 1);
}

Json number(double value) {
  const bool whole = std::nearbyint(value) == value && std::fabs(value) < 1e15;
  return whole ? Json(static_cast<int64_t>(value)) : Json(value);
}

// The entries that give every target `value` where the default does not.
Json pattern(std::span<const ExpertTarget> targets, double standard,
             const std::function<double(const ExpertTarget&)>& value) {
  std::map<std::string, std::set<double>> values;  // by short key, over everything the key matches
  for (const ExpertTarget& t : targets) values[short_key(t)];
  for (const ExpertTarget& t : targets)
    for (auto& [key, seen] : values)
      if (t.path == key || t.path.ends_with("." + key)) seen.insert(value(t));
  std::map<std::string, double> entries;
  for (const ExpertTarget& t : targets) {
    if (value(t) == standard) continue;
    const std::string key = short_key(t);
    entries[values[key].size() > 1 ? t.path : key] = value(t);
  }
  Json::Members members;
  for (const auto& [key, v] : entries) members.emplace_back(key, number(v));
  return Json::object(std::move(members));
}

void set_pattern(Json& config, std::string_view key, Json value) {
  if (!value.members().empty() || config.find(key) != nullptr) config.set(key, std::move(value));
}

}  // namespace

void set_scales(Json& config, const AdapterConfig& original,
                std::span<const ExpertTarget> targets) {
  int64_t r = original.r;
  double alpha = original.lora_alpha;
  const bool uniform =
      !targets.empty() && std::all_of(targets.begin(), targets.end(), [&](const ExpertTarget& t) {
        return t.scaling == targets.front().scaling;
      });
  if (uniform) {
    r = targets.front().scaling.rank;
    alpha = targets.front().scaling.alpha;
  }
  if (r != original.r) config.set("r", Json(r));
  if (alpha != original.lora_alpha) config.set("lora_alpha", number(alpha));
  set_pattern(config, "rank_pattern",
              pattern(targets, static_cast<double>(r),
                      [](const ExpertTarget& t) { return static_cast<double>(t.scaling.rank); }));
  set_pattern(config, "alpha_pattern",
              pattern(targets, alpha, [](const ExpertTarget& t) { return t.scaling.alpha; }));
}

}  // namespace moelora
