#include "lib/forward/mixer.h"

namespace moelora {

std::unique_ptr<Mixer> make_mixer(const FamilySection& section, int64_t longest) {
  constexpr MakeMixer kMakers[] = {
      make_softmax_attention, make_latent_attention, make_gemma4_attention,
      make_gated_delta,       make_mamba2,           make_short_conv};
  return kMakers[section.one_of("kind", {"softmax", "mla", "gemma4", "gated_delta", "mamba2",
                                         "short_conv"})](section, longest);
}

}  // namespace moelora
