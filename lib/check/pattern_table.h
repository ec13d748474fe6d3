#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/adapter/adapter_config.h"
#include "lib/adapter/path_regex.h"

namespace moelora {

// A rank_pattern or alpha_pattern whose keys are compiled once, for tens of thousands of paths.
// PEFT's rule: the first key for which re.match(r"(.*\.)?(KEY)$", path) succeeds.
class PatternTable {
 public:
  template <class T>
  explicit PatternTable(const std::vector<std::pair<std::string, T>>& patterns) {
    for (const auto& pattern : patterns) add(pattern.first);
  }

  size_t size() const { return keys_.size(); }
  const std::string& key(size_t index) const { return keys_[index].text; }

  // A key that is no expression we understand matches nothing.
  bool matches(size_t index, const std::string& path) const;
  std::optional<size_t> first_match(const std::string& path) const;

 private:
  struct Key {
    std::string text;
    std::optional<PathRegex> regex;  // nullopt: literal, or not understood
    bool literal;
  };
  void add(const std::string& key);
  std::vector<Key> keys_;
};

// AdapterConfig::scaling() for many paths.
class ScalingTable {
 public:
  explicit ScalingTable(const AdapterConfig& config)
      : config_(config), ranks_(config.rank_pattern), alphas_(config.alpha_pattern) {}

  Scaling scaling(const std::string& path) const;

 private:
  const AdapterConfig& config_;
  PatternTable ranks_, alphas_;
};

}  // namespace moelora
