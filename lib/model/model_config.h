#pragma once

#include <optional>
#include <string>
#include <vector>

#include "lib/model/family.h"

namespace moelora {

// A config.json read through a family's spellings.
class ModelConfig {
 public:
  // Keys are looked up below `nested` ("text_config", "" for none), then at the top.
  // Throws Error when `nested` is not there.
  ModelConfig(const Json& config, const std::string& where, const std::string& nested);

  std::optional<JsonView> find(const std::string& key) const;  // null counts as absent
  std::optional<JsonView> find_at_top(const std::string& key) const { return top_.find(key); }
  FindKey finder() const;  // refers to this object

  // All values of the rules, in order; a rule may use those before it. true is 1, false 0; a list
  // of equal integers (one a layer) is that integer. Throws Error at the config: a key that is
  // missing, of the wrong kind, or out of range.
  Values values(const std::vector<ValueRule>& rules, const std::string& family) const;

  // The first of `keys` that is there, else `otherwise`.
  std::string string(const std::vector<std::string>& keys, const std::string& otherwise) const;

 private:
  int64_t value(const ValueRule& rule, const Values& before, const std::string& family) const;
  std::optional<int64_t> given(const ValueRule& rule) const;

  JsonView top_, nested_;
};

}  // namespace moelora
