#include "lib/diff/presets.h"

#include <array>
#include <vector>

#include "lib/base/nearest.h"

namespace moelora {
namespace {

constexpr std::string_view kSglang =
    "sgl-project/sglang test/registered/lora/test_lora_*_logprob_diff.py, 2026-08-21; what it "
    "prints as KL is k2";

constexpr std::array<Preset, 15> kPresets = {{
    {"sglang-qwen3-8b", "k2", 5e-3, kSglang},
    {"sglang-qwen3-30b-a3b", "k2", 6e-3, kSglang},
    {"sglang-qwen3-vl-30b-a3b", "k2", 5e-3, kSglang},
    {"sglang-gpt-oss-20b", "k2", 5e-3, kSglang},
    {"sglang-deepseek-v3.1", "k2", 6e-3, kSglang},
    {"sglang-kimi-k2.5", "k2", 1.5e-2, kSglang},
    {"sglang-nemotron-3-super", "k2", 2.5e-3, kSglang},
    {"sglang-qwen3.5-35b-a3b", "k2", 1e-3, kSglang},
    {"sglang-qwen3.5-4b", "k2", 4e-3, kSglang},
    {"sglang-tp", "max_abs", 5e-4, "sgl-project/sglang test_lora_moe_tp_logprob_diff.py"},
    {"sglang-chunked", "max_abs", 5e-3, "the chunked-logprob variant of the same test"},
    {"sglang-hf", "max_abs", 1e-1, "sgl-project/sglang test_lora_hf_sgl_logprob_diff.py"},
    {"slime", "mean_abs", 0.1, "THUDM/slime, mean absolute difference"},
    {"miles", "mean_abs", 1e-3, "miles logprob_comparator.py"},
    {"verl", "prob_mean_abs", 5e-3, "verl, healthy mean of rollout_probs_diff"},
}};

}  // namespace

std::span<const Preset> all_presets() { return kPresets; }

const Preset& preset_by_name(std::string_view name) {
  std::vector<std::string_view> known;
  for (const Preset& preset : kPresets) {
    if (preset.name == name) return preset;
    known.push_back(preset.name);
  }
  throw unknown_word(at_option(Option::preset), "preset", name, known);
}

}  // namespace moelora
