#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>

// What SGLang reads out of a tensor's name. It does not look at prefixes: every pattern is searched
// for anywhere (layers/utils/common.py get_layer_id, lora/lora.py, lora/mem_pool.py).
namespace moelora::sglang {

inline bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

// Python's str.replace: every occurrence.
std::string replaced(std::string_view text, std::string_view from, std::string_view to);

// N of the first "layers.N."; nullopt for a tensor of no layer. A number beyond int64 is its limit.
std::optional<int64_t> layer_of(std::string_view name);

// N of the first "experts.N.".
std::optional<int64_t> expert_of(std::string_view name);

// The module a factor belongs to, without the path: "gate_proj" of "...0.gate_proj.lora_A.weight";
// of any other tensor the last component but one.
std::string_view module_of(std::string_view name);

// "lora_A" or "lora_B", "lora_embedding_A" or "lora_embedding_B" as the last component, ".weight"
// aside: a low-rank factor. SGLang itself does not ask.
bool is_factor(std::string_view name);

}  // namespace moelora::sglang
