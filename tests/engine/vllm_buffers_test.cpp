// The buffers of a rank, filled with values, against those that vLLM held.

#include <doctest/doctest.h>

#include "tests/engine/vllm_filled.h"

using namespace moelora;
using namespace moelora::test;

TEST_CASE("what a rank holds after a load is bit for bit what vLLM held, by name and shape") {
  size_t compared = 0;
  for (const VllmRun& run : vllm_oracle().runs) {
    if (!run.buffers || of_the_cpu(run) || has_nan_payloads(run)) continue;
    INFO(run.text());
    const RankBuffers held = vllm_filled(run);
    REQUIRE_FALSE(held.refused.has_value());
    CHECK(buffers_crc(held.buffers) == *run.buffers);
    ++compared;
  }
  CHECK(compared == 2069);
}

TEST_CASE("an adapter that vLLM refuses has no buffers but the server's own words") {
  size_t refused = 0;
  for (const VllmRun& run : vllm_oracle().runs) {
    if (run.outcome->served() || of_the_cpu(run)) continue;
    INFO(run.text());
    const RankBuffers held = vllm_filled(run);
    REQUIRE(held.refused.has_value());
    CHECK(held.refused->stage == run.outcome->stage);
    CHECK(held.refused->type == run.outcome->type);
    CHECK(without_sets(held.refused->text) == run.outcome->text);
    CHECK(held.buffers.empty());
    ++refused;
  }
  CHECK(refused > 700);
}
