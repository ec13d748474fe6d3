#include "lib/check/peft_facts.h"

#include <algorithm>
#include <array>

namespace moelora {
namespace {

// Model types whose conversion PEFT knows: those that transformers maps like qwen2_moe or mixtral.
constexpr std::array<std::string_view, 22> kConverted = {
    "qwen2_moe",   "qwen3_moe", "qwen3_next",    "qwen3_omni_moe", "deepseek_v2",
    "deepseek_v3", "dots1",     "ernie4_5_moe",  "glm4_moe",       "glm4_moe_lite",
    "glm_moe_dsa", "glm4v_moe", "longcat_flash", "solar_open",     "hunyuan_v1_moe",
    "flex_olmo",   "olmoe",     "exaone_moe",    "afmoe",          "mixtral",
    "minimax",     "minimax_m2"};

// Classes that mark their parameters as [E, in, out] (transformers' use_experts_implementation).
bool is_marked_transposed(const ModelSpec& spec) { return spec.family == "gpt_oss"; }

}  // namespace

bool is_fused_in_memory(const ModelSpec& spec) {
  return spec.hub.numbered && !spec.memory.numbered && !spec.model_type.starts_with("kimi");
}

bool peft_converts(const ModelSpec& spec) {
  return std::find(kConverted.begin(), kConverted.end(), spec.model_type) != kConverted.end();
}

bool peft_has(const EngineChoice& peft, std::string_view release) {
  return peft.version.has(peft.engine->release(release));
}

Roles peft_roles(const ModelSpec& spec, const EngineChoice& peft) {
  const bool in_out = spec.memory.axes == ExpertAxes::in_out;
  bool transposed = false;  // read as [E, out, in]
  if (peft_has(peft, "0.19.1"))
    transposed = !is_marked_transposed(spec);
  else if (peft_has(peft, "0.19.0"))
    transposed = is_marked_transposed(spec);
  return transposed == in_out ? Roles::swapped : Roles::natural;
}

std::string release_of(const std::string& peft_version) {
  size_t end = peft_version.find_first_not_of("0123456789.");
  std::string out = peft_version.substr(0, end);
  while (!out.empty() && out.back() == '.') out.pop_back();
  return EngineVersion::parse(out) ? out : "";
}

}  // namespace moelora
