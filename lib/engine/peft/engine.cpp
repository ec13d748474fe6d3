// PEFT itself: what PeftModel.from_pretrained() makes of an adapter (plan.h), and how one is made
// fit for it.

#include "lib/engine/engine.h"

#include <array>

#include "lib/engine/peft/fit.h"
#include "lib/engine/peft/peft.h"
#include "lib/engine/peft/plan.h"
#include "lib/engine/peft/values.h"

namespace moelora {
namespace {

constexpr auto kReleases = std::to_array<Release>({
    {"0.17", "2025-08-01"},
    {"0.18", "2025-11-13"},
    {"0.19.0", "2026-04-14"},
    {"0.19.1", "2026-04-16"},
    {"0.20", "2026-07-28"},
    {"0.21", "2026-09-15"},
    {"0.21.1", "2026-09-29"},
    {"0.21.2", "2026-10-01"},
});

constexpr std::array<ServerOption, 1> kOptions = {
    {{"transformers", "", ServerOption::Kind::text,
      "the release of transformers beside it: 4.57, 5.5, 5.24 ... (default: of its time)"}}};

}  // namespace

bool is_fused_in_memory(const ModelSpec& spec) {
  return spec.hub.numbered && !spec.memory.numbered && !spec.peft.numbered;
}

std::string release_of(const std::string& peft_version) {
  std::string out = peft_version.substr(0, peft_version.find_first_not_of("0123456789."));
  while (out.ends_with('.')) out.pop_back();
  return EngineVersion::parse(out) ? out : "";
}

const Engine engines::peft = {
    .id = "peft",
    .title = "PEFT",
    .releases = kReleases,
    .newest = kReleases.back().version,
    .known_to = "2026-11-28",
    .options = [] { return std::span<const ServerOption>(kOptions); },
    .plan = peft::plan,
    .fill = peft::fill,
    .blocks = peft::blocks,
    .fit = &peft::kFit,
};

}  // namespace moelora
