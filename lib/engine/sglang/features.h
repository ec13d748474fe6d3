#pragma once

#include <array>

#include "lib/engine/release.h"

namespace moelora::sglang {

// Releases that changed what happens to an adapter, oldest first; the newest is the oracle's state
// (commit 7d893255c of 2026-08-21).
inline constexpr std::array<Release, 7> kReleases = {{{"0.5.10rc0", "2026-03-27"},
                                                      {"0.5.10", "2026-04-05"},
                                                      {"0.5.11", "2026-05-05"},
                                                      {"0.5.12", "2026-05-16"},
                                                      {"0.5.13", "2026-06-11"},
                                                      {"0.5.16", "2026-07-25"},
                                                      {"0.5.18", "2026-08-21"}}};

// What a version of SGLang has. Named after the change, true when it is in.
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
};

inline Features features_of(const EngineVersion& version) {
  constexpr const Release &k0510 = kReleases[1], &k0511 = kReleases[2], &k0512 = kReleases[3],
                          &k0513 = kReleases[4], &k0516 = kReleases[5];
  Features out;
  out.moe_without_shared = out.stacked_experts = out.detects_shared_outer = version.has(k0510);
  out.replicated_layers = out.refuses_dora = out.any_rank_below_max = out.slices_always =
      version.has(k0511);
  out.second_mla_layers = out.csgmv_experts = version.has(k0512);
  out.moe_runner_config = version.has(k0513);
  out.detects_numbered = version.has(k0516);
  return out;
}

}  // namespace moelora::sglang
