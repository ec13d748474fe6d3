#pragma once

#include <map>
#include <string>

#include "lib/adapter/delta_pair.h"

namespace moelora {

// One name for modules that have several: the base's memory form. A name that is the base's but for
// its root ("language_model.model.layers.3.", "layers.3." for "model.layers.3.") is that module's;
// one that the base does not have stays.
class ModuleNames {
 public:
  explicit ModuleNames(const ModelSpec& spec);
  std::string of(const std::string& module) const;

 private:
  const ModelSpec& spec_;
  std::map<std::string, std::string, std::less<>> by_tail_;  // "layers.3.self_attn.q_proj"
};

// What an adapter means, module by module of the base. The embedding's factors count as a pair: a
// one-hot x. A dense module that the base has in parts in one form, or that is trained in parts of
// what the base has whole, is as the hub's form has it (lib/adapter/joined_modules.h).
// Saved modules, biases and DoRA's magnitudes are not deltas and are left out.
Deltas meant_deltas(const Adapter& adapter, const ModelSpec& spec);

}  // namespace moelora
