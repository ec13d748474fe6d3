#include "lib/forward/mixer.h"

#include <algorithm>
#include <array>
#include <vector>

#include "lib/base/nearest.h"

namespace moelora {
namespace {

constexpr std::array kAll = {
#define MOELORA_ENTRY(name) &name##_mixer,
#include "mixers.inc"
#undef MOELORA_ENTRY
};

const MixerKind& kind_of(const FamilySection& section) {
  const std::string word = section.text("kind");
  const auto found = std::find_if(kAll.begin(), kAll.end(),
                                  [&](const MixerKind* kind) { return kind->id == word; });
  if (found != kAll.end()) return **found;
  std::vector<std::string_view> known;
  for (const MixerKind* kind : kAll) known.push_back(kind->id);
  throw unknown_word(section.place("kind"), "mixer kind", word, known);
}

}  // namespace

std::unique_ptr<Mixer> make_mixer(const FamilySection& section, int64_t longest) {
  return kind_of(section).make(section, longest);
}

}  // namespace moelora
