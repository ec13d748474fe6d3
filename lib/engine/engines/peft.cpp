// PEFT itself: what it makes of an adapter when it loads one. There is no loader to simulate; the
// PFT rules say what its releases do.

#include <array>

#include "lib/engine/engine.h"

namespace moelora {
namespace {

constexpr std::array<Release, 6> kReleases = {{{"0.17", "2025-08-01"},
                                               {"0.18", "2025-11-13"},
                                               {"0.19.0", "2026-04-14"},
                                               {"0.19.1", "2026-04-16"},
                                               {"0.20", "2026-07-01"},
                                               {"0.21", "2026-09-01"}}};

}  // namespace

extern const Engine peft_engine;
const Engine peft_engine = {
    .id = "peft",
    .title = "PEFT",
    .releases = kReleases,
    .newest = "0.21",
    .known_to = "2026-11-21",
    .options = {},
    .plan = nullptr,
};

}  // namespace moelora
