#pragma once

#include <algorithm>
#include <array>
#include <string_view>

#include "lib/engine/release.h"

namespace moelora::sglang {

// Releases, oldest first: those that changed what happens to an adapter, and every one since
// 0.5.16. A release that changes nothing is one line. The last is the newest that an oracle was
// made of.
inline constexpr auto kReleases = std::to_array<Release>({
    {"0.5.10rc0", "2026-03-27"},
    {"0.5.10", "2026-04-05"},
    {"0.5.11", "2026-05-05"},
    {"0.5.12", "2026-05-16"},
    {"0.5.13", "2026-06-11"},
    {"0.5.16", "2026-07-25"},
    {"0.5.17", "2026-08-08"},
    {"0.5.18", "2026-08-21"},
    {"0.5.19", "2026-09-04"},
    {"0.5.20", "2026-09-18"},
    {"0.5.21", "2026-10-01"},
    {"0.5.22", "2026-10-16"},
    {"0.5.23", "2026-10-30"},
});

// nullptr for a version that is not among them.
inline const Release* release_named(std::string_view version) {
  const auto found = std::find_if(kReleases.begin(), kReleases.end(),
                                  [&](const Release& one) { return one.version == version; });
  return found == kReleases.end() ? nullptr : &*found;
}

// What a version of SGLang has. Named after the change, true when it is in; as made, the newest.
struct Features {
  bool moe_without_shared = true;    // 0.5.10 #21466, #21570: *_moe buffers by the model's class,
                                     // and gpt-oss's spelling of the expert count
  bool stacked_experts = true;       // 0.5.10 #21466: 3-D expert tensors, and w1/w3/w2 renamed
  bool detects_shared_outer = true;  // 0.5.10 #21466, #21647
  bool replicated_layers = true;     // 0.5.11 #22323: ReplicatedLinear can be wrapped, and MLA's
                                     // q_a_proj and kv_a_proj_with_mqa
  bool refuses_dora = true;          // 0.5.11 #22125
  bool any_rank_below_max = true;    // 0.5.11 #21864: experts of a rank below the pool's are right
  bool slices_always = true;         // 0.5.11: factors are cut to the layer's rows at tp 1 too
  bool second_mla_layers = true;     // 0.5.12 #25001: q_b_proj, kv_b_proj
  bool csgmv_experts = true;         // 0.5.12 #24007: expert LoRA with --lora-backend csgmv
  bool moe_runner_config = true;     // 0.5.13 #26710
  bool detects_numbered = true;      // 0.5.16 #31681: numbered experts count in the detection
  bool indexer = true;               // 0.5.16 #28110 (0.5.14): LoRA on the indexer of DSA
  bool asks_for_quant_info = true;   // 0.5.19: a runner without LoRA is refused in other words
  bool dense_width_of_layer = true;  // 0.5.21: dense buffers are as wide as the layer, per rank
  bool pins_under_dp = true;         // 0.5.21: DP attention takes pinned adapters alone
  bool class_chooses = true;         // 0.5.22: should_apply_lora() of the model's class is asked
  bool one_rank_dp_groups = true;    // 0.5.22: DP attention needs as many groups as ranks
  bool virtual_up_a = true;          // 0.5.23: virtual experts multiply up with its own lora_A
  bool lora_runners = true;          // 0.5.23: --lora-backend triton_v2, runners named lora_*
  bool refuses_numbered_shared = true;  // 0.5.23: shared_experts.N. no longer overwrites expert N
  bool asks_indexers = true;            // 0.5.23: each indexer says whether it is fused
  bool refuses_replicated_q = true;     // 0.5.23: --dcp-replicate-q-proj and LoRA on queries
};

inline Features features_of(const EngineVersion& version) {
  const auto has = [&](std::string_view release) { return version.has(*release_named(release)); };
  Features out;
  out.moe_without_shared = out.stacked_experts = out.detects_shared_outer = has("0.5.10");
  out.replicated_layers = out.refuses_dora = out.any_rank_below_max = out.slices_always =
      has("0.5.11");
  out.second_mla_layers = out.csgmv_experts = has("0.5.12");
  out.moe_runner_config = has("0.5.13");
  out.detects_numbered = out.indexer = has("0.5.16");
  out.asks_for_quant_info = has("0.5.19");
  out.dense_width_of_layer = out.pins_under_dp = has("0.5.21");
  out.class_chooses = out.one_rank_dp_groups = has("0.5.22");
  out.virtual_up_a = out.lora_runners = out.refuses_numbered_shared = out.refuses_replicated_q =
      out.asks_indexers = has("0.5.23");
  return out;
}

}  // namespace moelora::sglang
