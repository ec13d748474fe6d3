#pragma once

#include <array>
#include <string_view>

#include "lib/engine/release.h"

namespace moelora::vllm {

// States of vLLM that changed what becomes of an adapter, and every release since 0.27 (dates:
// vLLM's git log to 2026-05-19, then PyPI's). An entry's version is the first release that is known
// to have the change; where that is not the release of this day it is named an rc of it.
inline constexpr auto kReleases = std::to_array<Release>({
    {"0.11.1", "2025-10-21"},   // #21229 experts take LoRA at all, one pair an expert
    {"0.12rc0", "2025-11-19"},  // #28761 fully sharded experts
    {"0.12", "2025-11-24"},     // #29222 stacked experts have a wrapper of their own
    {"0.13rc0", "2025-11-30"},  // #29708 experts of an MXFP4 base
    {"0.14rc0", "2025-12-23"},  // #31161 .bin and .pt: tensor names are checked, not the config
    {"0.14", "2025-12-31"},     // #31534 a stacked lora_B is rank-major
    {"0.15", "2026-01-19"},     // #30802 experts without a gate
    {"0.18", "2026-03-17"},     // #34984 --lora-target-modules
    {"0.21", "2026-05-09"},     // #40867 expert parallel
    {"0.22rc0", "2026-05-16"},  // #42757 a router inside the MoE runner keeps its LoRA
    {"0.22rc1", "2026-05-19"},  // #42242 mixed format; the first oracle
    {"0.22", "2026-05-29"},     // the one-shot kernel: --max-lora-rank 128 with experts
    {"0.24", "2026-06-30"},     // Dots1 is gone; the day that its sources are stamped with
    {"0.27rc0", "2026-07-19"},  // #48884 shared outer factors, #48437 r must be positive
    {"0.27", "2026-08-10"},     // the second oracle is a fork's state of 08-04
    {"0.28", "2026-08-26"},
    {"0.29", "2026-09-09"},  // Mixtral's names, Qwen3.5's embeddings, the Transformers backend
    {"0.30", "2026-09-22"},  // #55548 rsLoRA on experts
    {"0.31", "2026-10-05"},  // GLM-4's router, saved classification heads
    {"0.32", "2026-10-18"},  // patterns, refusals by the config, stacked factors on a 2-D wrapper
    {"0.33", "2026-11-02"},  // text-only names in wrappers, padded partitions
});

// Null when it is none of these.
constexpr const Release* find_release(std::string_view version) {
  for (const Release& entry : kReleases)
    if (entry.version == version) return &entry;
  return nullptr;
}

// REQUIRES that it is one of these: `version` is a literal.
constexpr const Release& release(std::string_view version) { return *find_release(version); }

}  // namespace moelora::vllm
