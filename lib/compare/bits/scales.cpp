#include "lib/compare/bits/scales.h"

#include <fmt/core.h>

#include <cmath>

#include "lib/base/error.h"

namespace moelora::packed {
namespace {

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
    throw Error(where, fmt::format("the rank {} is not a positive integer", value));
  return static_cast<int64_t>(value);
}

bool flag(const Json& config, std::string_view key, const std::string& where) {
  const Json* value = find(config, key);
  if (value == nullptr) return false;
  if (!value->is(Json::Kind::boolean)) mistyped(where, key, *value, "true or false");
  return value->as_bool();
}

// Keys and numbers of rank_pattern or alpha_pattern.
PatternTable<double> read_pattern(const Json* patterns, std::string_view key,
                                  const std::string& where) {
  PatternTable<double> out;
  if (patterns == nullptr) return out;
  if (!patterns->is(Json::Kind::object)) mistyped(where, key, *patterns, "an object");
  for (const auto& [name, value] : patterns->members()) {
    if (!value.is_number()) mistyped(where, key, value, "numbers");
    out.add(name, value.as_double());
  }
  return out;
}

}  // namespace

double Scale::value() const {
  const auto r = static_cast<double>(rank);
  return rslora ? alpha / std::sqrt(r) : alpha / r;
}

Scales::Scales(const Json& config, const std::string& where)
    : standard_{number(config, "lora_alpha", where), as_rank(number(config, "r", where), where),
                flag(config, "use_rslora", where)},
      rank_(read_pattern(find(config, "rank_pattern"), "rank_pattern", where)),
      alpha_(read_pattern(find(config, "alpha_pattern"), "alpha_pattern", where)) {}

Scale Scales::of(const std::vector<std::string>& paths) const {
  if (!has_patterns()) return standard_;
  for (const std::string& path : paths) {
    const double *rank = rank_.find(path), *alpha = alpha_.find(path);
    if (rank == nullptr && alpha == nullptr) continue;
    return {alpha != nullptr ? *alpha : standard_.alpha,
            rank != nullptr ? as_rank(*rank, path) : standard_.rank, standard_.rslora};
  }
  return standard_;
}

}  // namespace moelora::packed
