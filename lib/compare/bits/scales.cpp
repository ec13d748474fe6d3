#include "lib/compare/bits/scales.h"

#include <fmt/format.h>

#include <cmath>

#include "lib/base/error.h"

namespace moelora::packed {
namespace {

constexpr size_t kMostPatterns = 1000;  // that are no plain names

const Json* find(const Json& config, std::string_view key) {
  const Json* value = config.find(key);
  return value == nullptr || value->is(Json::Kind::null) ? nullptr : value;
}

[[noreturn]] void mistyped(const std::string& where, std::string_view key, const Json& value,
                           std::string_view expected) {
  throw Error(where, fmt::format("\"{}\" is {}, expected {}", key, value.kind_name(), expected));
}

double number(const Json& config, std::string_view key, const std::string& where) {
  const Json* value = find(config, key);
  if (value == nullptr) throw Error(where, fmt::format("\"{}\" is missing", key));
  if (!value->is_number()) mistyped(where, key, *value, "a number");
  return value->as_double();
}

int64_t as_rank(double value, const std::string& where) {
  if (!(value >= 1) || value > 1e9 || value != std::floor(value))
    throw Error(where, fmt::format("the rank {} is no positive integer", value));
  return static_cast<int64_t>(value);
}

bool flag(const Json& config, std::string_view key, const std::string& where) {
  const Json* value = find(config, key);
  if (value == nullptr) return false;
  if (!value->is(Json::Kind::boolean)) mistyped(where, key, *value, "true or false");
  return value->as_bool();
}

bool is_plain(std::string_view key) {
  return key.find_first_of("\\*+?()[]{}|^$") == std::string_view::npos;
}

}  // namespace

double Scale::value() const {
  const auto r = static_cast<double>(rank);
  return rslora ? alpha / std::sqrt(r) : alpha / r;
}

Scales::Table::Table(const Json* patterns, std::string_view key, const std::string& where) {
  if (patterns == nullptr) return;
  if (!patterns->is(Json::Kind::object)) mistyped(where, key, *patterns, "an object");
  size_t order = 0;
  for (const auto& [name, value] : patterns->members()) {
    if (!value.is_number()) mistyped(where, key, value, "numbers");
    const Entry entry{order++, value.as_double()};
    if (is_plain(name))
      plain_.emplace(name, entry);
    else if (patterns_.size() < kMostPatterns)
      patterns_.emplace_back(PatternKey(name, where), entry);
    else
      throw Error(where, fmt::format("\"{}\" has more than {} patterns", key, kMostPatterns));
  }
}

std::optional<double> Scales::Table::find(std::string_view path) const {
  const Entry* first = nullptr;
  for (std::string_view rest = path; !plain_.empty();) {
    const auto found = plain_.find(rest);
    if (found != plain_.end() && (first == nullptr || found->second.order < first->order))
      first = &found->second;
    const size_t dot = rest.find('.');
    if (dot == std::string_view::npos) break;
    rest.remove_prefix(dot + 1);
  }
  for (const auto& [key, entry] : patterns_) {
    if (first != nullptr && first->order < entry.order) break;
    if (!key.names(path)) continue;
    first = &entry;
    break;
  }
  return first == nullptr ? std::nullopt : std::optional(first->value);
}

Scales::Scales(const Json& config, const std::string& where)
    : standard_{number(config, "lora_alpha", where), as_rank(number(config, "r", where), where),
                flag(config, "use_rslora", where)},
      rank_(packed::find(config, "rank_pattern"), "rank_pattern", where),
      alpha_(packed::find(config, "alpha_pattern"), "alpha_pattern", where) {}

Scale Scales::of(const std::vector<std::string>& paths) const {
  if (!has_patterns()) return standard_;
  for (const std::string& path : paths) {
    const auto rank = rank_.find(path), alpha = alpha_.find(path);
    if (!rank && !alpha) continue;
    return {alpha.value_or(standard_.alpha), rank ? as_rank(*rank, path) : standard_.rank,
            standard_.rslora};
  }
  return standard_;
}

}  // namespace moelora::packed
