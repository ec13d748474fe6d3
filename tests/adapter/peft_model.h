#pragma once

#include <set>
#include <string>

#include "lib/io/json.h"

namespace moelora::test {

// What PEFT 0.21 would do with an adapter_config.json, written from facts/peft.md 1.1, 1.6 and 4.2
// and sharing nothing with lib/adapter: which modules and parameters it wraps, and with what rank
// and scale.
struct PeftModel {
  std::set<std::string> modules;     // paths of nn.Linear modules
  std::set<std::string> parameters;  // full parameter paths
};

// The model that an adapter of `layout` is for: a family of the catalogue as transformers 4 holds
// it (peft-linear; linear-fused with gate and up of an expert in one), or as transformers 5 does
// (peft-params). gpt-oss' numbered experts are in no transformers.
PeftModel model_for(const std::string& layout, const std::string& family);

std::set<std::string> wrapped_modules(const Json& config, const PeftModel& model);
std::set<std::string> wrapped_parameters(const Json& config, const PeftModel& model);

struct RankAndScale {
  int64_t rank;
  double scale;
  friend bool operator==(const RankAndScale&, const RankAndScale&) = default;
};

// get_pattern_key: the first key for which re.match(r"(.*\.)?(KEY)$", path) succeeds.
RankAndScale rank_and_scale(const Json& config, const std::string& path);

}  // namespace moelora::test
