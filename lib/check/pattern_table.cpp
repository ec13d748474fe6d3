#include "lib/check/pattern_table.h"

#include "lib/base/error.h"

namespace moelora {

void PatternTable::add(const std::string& key) {
  Key& out = keys_.emplace_back(Key{key, std::nullopt, false});
  out.literal = key.find_first_of("\\*+?()[]{}|^$") == std::string::npos;
  if (out.literal) return;
  try {
    out.regex.emplace("(.*\\.)?(" + key + ")");
  } catch (const Error&) {  // the reader says so
  }
}

bool PatternTable::matches(size_t index, const std::string& path) const {
  const Key& key = keys_[index];
  if (key.literal) return pattern_matches(key.text, path);
  return key.regex && key.regex->matches(path);
}

std::optional<size_t> PatternTable::first_match(const std::string& path) const {
  for (size_t i = 0; i < keys_.size(); ++i)
    if (matches(i, path)) return i;
  return std::nullopt;
}

Scaling ScalingTable::scaling(const std::string& path) const {
  const auto rank = ranks_.first_match(path), alpha = alphas_.first_match(path);
  return {rank ? config_.rank_pattern[*rank].second : config_.r,
          alpha ? config_.alpha_pattern[*alpha].second : config_.lora_alpha, config_.use_rslora};
}

}  // namespace moelora
