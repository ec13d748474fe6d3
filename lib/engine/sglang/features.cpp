#include "lib/engine/sglang/features.h"

namespace moelora::sglang {
namespace {

constexpr const Release &k0510 = kReleases[1], &k0511 = kReleases[2], &k0512 = kReleases[3],
                        &k0513 = kReleases[4], &k0516 = kReleases[5];

}  // namespace

Features features_of(const EngineVersion& version) {
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
