#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "lib/engine/served_adapter.h"
#include "lib/engine/vllm/load/fault.h"
#include "lib/engine/vllm/server/server.h"

namespace moelora::vllm {

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
ParsedName parse_name(const Server& server, const std::string& name);

// The file vLLM reads: adapter_model.safetensors, .bin or .pt; null when there is none.
const WeightFile* chosen_file(const ServedAdapter& adapter);

// The name gate (check_unexpected_modules): every name must parse, and its last component (or its
// tail from "experts") must be one that the model has. Names with "base_layer" are not looked at.
// The first fault is what the server raises; one fault a cause.
std::vector<Fault> check_names(const Server& server, const ServedAdapter& adapter,
                               const WeightFile& file, const std::vector<ParsedName>& names);

}  // namespace moelora::vllm
