#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lib/base/regex/path_pattern.h"
#include "lib/engine/served_adapter.h"
#include "lib/engine/vllm/load/event.h"
#include "lib/engine/vllm/server/server.h"

namespace moelora::vllm {

// What PEFTHelper makes of adapter_config.json.
struct LoraConfig {
  double scaling = 1;             // of dense modules and stacked experts: alpha / r, or / sqrt(r)
  double expert_scaling = 1;      // of numbered and shared-outer experts
  bool readable = false;          // false: the server raised, the scales mean nothing
  std::vector<LoadEvent> events;  // stages load, config, validate

  // rank_pattern and alpha_pattern as far as the version reads them, and what else the scale of a
  // module is made of.
  PatternTable<Json> ranks, alphas;
  Json r, alpha;
  bool rslora = false;

  // get_rank_and_scaling() of a module as the checkpoint spells it, without PEFT's prefix. Raises.
  double scale_of(std::string module) const;
  // Of numbered and shared-outer experts: no release has read patterns and not rsLoRA.
  double expert_scale_of(const std::string& module) const {
    return has_patterns() ? scale_of(module) : expert_scaling;
  }
  bool has_patterns() const { return !ranks.empty() || !alphas.empty(); }
};
LoraConfig read_config(const ServedAdapter& adapter, const Settings& settings);  // config.cpp

// A tensor's name as parse_fine_tuned_lora_name() takes it apart.
struct ParsedName {
  enum class Is : uint8_t {
    factor,       // lora_A or lora_B of `module`
    skipped,      // embed_tokens.base_layer.weight ...: passed over without a word
    unsupported,  // refused; `module` is the name as the message has it
  };
  Is is = Is::unsupported;
  std::string module;  // as vLLM spells it: "model.layers.0.attn.q_proj"
  bool a = false;
};

inline Raised unsupported(const ParsedName& name) {
  return Raised("ValueError", name.module + " is unsupported LoRA weight");
}

// Modules by number, as an adapter has tens of thousands and every rank looks at all.
inline constexpr uint32_t kNoModule = UINT32_MAX;

// The numbers that one of server.modules looks for.
struct Wanted {
  uint32_t own = kNoModule;        // its own name
  uint32_t inner = kNoModule;      // NAME.base_layer, of experts
  std::vector<uint32_t> children;  // what it packs; kNoModule where the adapter has none
};

// An adapter as every rank sees it: the config, the file, its names.
struct Adapter {
  const ServedAdapter& served;
  LoraConfig config;
  const WeightFile* file = nullptr;  // null: the server finds none
  std::vector<ParsedName> names;     // of file->tensors
  std::vector<LoadEvent> events;     // stages load, config, validate, file, names

  std::vector<std::string> modules;  // names by number
  std::vector<uint32_t> module_of;   // of file->tensors; kNoModule where the name has none
  std::vector<Wanted> wanted;        // of server.modules
};

// `served` must outlive the result.
Adapter open_adapter(const Server& server, const ServedAdapter& served);

}  // namespace moelora::vllm
