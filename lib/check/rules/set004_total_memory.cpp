#include <fmt/core.h>

#include "lib/base/utf8.h"
#include "lib/check/define_rule.h"
#include "lib/check/rule_context.h"
#include "lib/check/specimen.h"

namespace moelora {
namespace {

// SGLang's base model takes a slot too.
int64_t slots_for_all(const EngineRun& run, size_t adapters) {
  return static_cast<int64_t>(adapters) + (run.choice.engine == &engines::sglang ? 1 : 0);
}

void check_run(RuleContext& context, const EngineRun& run) {
  const size_t adapters = context.deployment().adapters.size();
  if (!run.plan || !run.options.gpu_memory || adapters < 2) return;
  const MemoryPlan& memory = run.plan->memory;
  const uint64_t limit = *run.options.gpu_memory;
  const int64_t slots = slots_for_all(run, adapters);
  const uint64_t all = memory.slot_bytes() * static_cast<uint64_t>(slots);
  // Too small for the slots that were asked for: SGL021 and VLM023 say so.
  if (memory.total_bytes() > limit || slots <= memory.slots || all <= limit) return;
  Finding& finding = context.report(fmt::format(
      "{} adapters at once take {} slots of {}, {} on every GPU, which has {}; the server holds {} "
      "and exchanges them",
      adapters, slots, size_text(memory.slot_bytes()), size_text(all), size_text(limit),
      memory.slots));
  finding.engine = run.choice.label();
}

void check(RuleContext& context) {
  for (const EngineRun& run : context.deployment().engines) check_run(context, run);
}

// Four adapters, three slots, memory for three.
void break_it(Specimen& specimen) {
  for (int i = 1; i < 4; ++i) {
    Subject other = specimen.adapters.front();
    other.given = other.folder = fmt::format("adapter-{}", i);
    specimen.adapters.push_back(std::move(other));
  }
  const Deployment deployment = deployment_of(specimen, "sglang");
  specimen.options.gpu_memory = deployment.engines.front().plan->memory.total_bytes();
}

}  // namespace

const Rule set004_total_memory = {
    .id = "SET004",
    .name = "total-memory",
    .severity = Severity::warning,
    .needs_base = true,
    .whole_deployment = true,
    .what = "The adapters of a deployment do not fit --gpu-memory at once.",
    .why =
        "Every slot is as large as the largest adapter needs, whoever is in it. Adapters beyond "
        "the slots wait in the host's memory and are copied in when a request names them.",
    .fix =
        "Serve fewer adapters a server, lower their ranks, or store shared outer factors once "
        "(--to shared-outer, where they are equal).",
    .source = "SGLang lora/mem_pool.py; vLLM worker_manager.py",
    .breaks = {.change = "serve four of it with three slots and memory for no more",
               .engine = "sglang",
               .options = {"max-loras=3"},
               .apply = break_it},
    .check = check,
};

}  // namespace moelora
