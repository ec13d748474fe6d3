// What a plan says of the oracle's adapters: the server's own words where it stops, and a cause
// for every tensor that is served otherwise than the adapter means.

#include <doctest/doctest.h>
#include <fmt/format.h>

#include "lib/engine/engine.h"
#include "lib/engine/sglang/causes.h"
#include "tests/engine/served_from_folder.h"
#include "tests/engine/sglang_compare.h"
#include "tests/engine/sglang_faults.h"

using namespace moelora;
using namespace moelora::test;

namespace {

ServerPlan plan_of(const OracleRecord& record) {
  const std::string adapter = record.text("adapter");
  const OracleBase& base = sglang_base(record.family, adapter.ends_with("_q40") ? "q40" : "");
  const ServedAdapter served = served_from_folder(sglang_folder(record.family, adapter));
  const EngineChoice choice = parse_engine("sglang@0.5.18");
  return choice.engine->plan(
      {{&served, 1}, base.spec, base.config, ServerOptions(), choice.version});
}

}  // namespace

TEST_CASE("a plan quotes SGLang where it stops, and names a cause for all it does silently") {
  for (const OracleRecord& record : sglang_records()) {
    if (record.text("adapter").empty() || record.text("setting") != "r") continue;
    CAPTURE(record.label());
    const ServerPlan plan = plan_of(record);
    REQUIRE(plan.adapters.size() == 1);
    const PlanEvent* refusal = plan.adapters[0].first_refusal();
    CHECK((refusal != nullptr) == !record.text("stage").empty());
    SilentFaults causes;
    for (const PlanEvent& event : plan.adapters[0].events) {
      CHECK(!event.detail.empty());
      // Whether the two A are equal is for a rule that sees values.
      if (event.cause != &sglang::cause::gpt_oss_split_a) causes.insert(event.cause);
    }
    if (refusal != nullptr)
      CHECK(refusal->refusal->stage == record.text("stage"));
    else
      CHECK(causes == silent_faults(record));
  }
}
