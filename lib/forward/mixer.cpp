#include "lib/forward/mixer.h"

namespace moelora {

std::unique_ptr<Mixer> make_mixer(const FamilySection& section, int64_t longest) {
  constexpr MakeMixer kMakers[] = {make_softmax_attention, make_latent_attention,
                                   make_gemma4_attention};
  return kMakers[section.one_of("kind", {"softmax", "mla", "gemma4"})](section, longest);
}

}  // namespace moelora
