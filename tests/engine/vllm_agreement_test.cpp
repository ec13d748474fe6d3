// How far the simulation and each release of vLLM agree, as tests/bench/RESULTS.md has it.

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <map>
#include <string>

#include "tests/adapter/readme_section.h"
#include "tests/engine/vllm_filled.h"

using namespace moelora;
using namespace moelora::test;

namespace {

struct Agreement {
  size_t loads = 0, outcomes = 0, texts = 0, left_out = 0, buffers = 0, equal = 0;
};

void compare(const VllmRun& run, Agreement& out) {
  ++out.loads;
  if (of_the_cpu(run)) {
    ++out.left_out;
    return;
  }
  const RankBuffers held = vllm_filled(run);
  const Refusal mine = held.refused.value_or(Refusal{"served", "", "", false});
  const bool same = mine.stage == run.outcome->stage && mine.type == run.outcome->type;
  out.outcomes += same;
  out.texts += same && without_sets(mine.text) == run.outcome->text;
  if (!run.buffers || has_nan_payloads(run)) return;
  ++out.buffers;
  out.equal += !held.refused && buffers_crc(held.buffers) == *run.buffers;
}

std::string table() {
  std::map<std::string, Agreement> releases;  // by version, as the oracle has them
  for (const VllmRun& run : vllm_oracle().runs) compare(run, releases[run.version]);
  std::string out =
      "| vLLM | loads | outcome and stage | text | left out (CPU) | buffers | bit-equal |\n"
      "|---|---|---|---|---|---|---|\n";
  for (const auto& [version, a] : releases)
    out += fmt::format("| {} | {} | {} | {} | {} | {} | {} |\n", version, a.loads, a.outcomes,
                       a.texts, a.left_out, a.buffers, a.equal);
  return out;
}

}  // namespace

TEST_CASE("each release of vLLM and its simulation agree as the table of results says") {
  check_results_section("vLLM's loader", table());
}
