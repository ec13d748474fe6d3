// NUM002 on adapters that nobody made on purpose: whatever a server serves of them is measured.

#include <doctest/doctest.h>

#include <array>
#include <random>

#include "lib/check/define_rule.h"
#include "lib/check/run_rules.h"
#include "lib/check/specimen.h"

using namespace moelora;

namespace {

using Random = std::mt19937;

size_t below(Random& random, size_t count) { return random() % count; }

// One dim a little smaller or larger, or gone, or a tensor of another name.
void mutate(Specimen& specimen, Random& random) {
  TensorMap& tensors = specimen.tensors();
  auto at = tensors.begin();
  std::advance(at, static_cast<std::ptrdiff_t>(below(random, tensors.size())));
  const std::string name = at->first;
  Shape shape = at->second.shape();
  switch (below(random, 6)) {
    case 0:
      tensors.erase(name);
      return;
    case 1:
      rename_tensors(specimen, "layers.1.", "layers.0.");
      return;
    case 2:
      shape.insert(shape.begin(), 1);
      break;
    default:
      if (!shape.empty()) {
        constexpr std::array<int64_t, 6> kSteps = {-8, -4, -1, 1, 4, 8};
        int64_t& extent = shape[below(random, shape.size())];
        extent = std::max<int64_t>(0, extent + kSteps[below(random, kSteps.size())]);
      }
  }
  specimen.set(name, specimen.random(shape, random()));
}

ServerOptions some_options(Random& random, std::string_view engine) {
  constexpr std::array<int64_t, 6> kRanks = {1, 2, 4, 3, 5, 8};  // vLLM splits over the first three
  ServerOptions out;
  out.tp = kRanks[below(random, engine == "vllm" ? 3 : kRanks.size())];
  out.max_lora_rank = std::array<int64_t, 3>{4, 8, 16}[below(random, 3)];
  if (engine != "vllm") {
    if (below(random, 3) == 0) out.ep = out.tp;
    return out;
  }
  for (const char* key :
       {"fully-sharded-loras", "enable-expert-parallel", "enable-mixed-moe-lora-format",
        "is-3d-lora-weight", "enable-moe-shared-loras"})
    if (below(random, 4) == 0) out.values[key] = "on";
  return out;
}

}  // namespace

TEST_CASE("whatever a server serves of a mutated adapter is measured without an accident") {
  Random random(1);
  size_t served = 0, wrong = 0;
  for (int round = 0; round < 1200; ++round) {
    const std::string_view id = specimen_ids()[below(random, specimen_ids().size())];
    const std::string engine = below(random, 2) == 0 ? "vllm" : "sglang";
    Specimen specimen = make_specimen(id);
    specimen.options = some_options(random, engine);
    for (size_t count = below(random, 5); count > 0; --count) mutate(specimen, random);
    specimen.numeric = true;
    CAPTURE(round);
    CAPTURE(id);
    const Deployment deployment = deployment_of(std::move(specimen), engine);
    const auto& plan = deployment.engines[0].plan;
    served += plan && plan->server.empty() && plan->adapters[0].first_refusal() == nullptr ? 1 : 0;
    for (const Finding& finding : run_rules(deployment).findings) {
      if (finding.rule->id != "NUM002") continue;
      CAPTURE(finding.message);
      CHECK_FALSE(finding.unchecked);
      ++wrong;
    }
  }
  CHECK(served > 150);
  CHECK(wrong > 8);  // few: ranks that the base does not split over serve nothing
}
