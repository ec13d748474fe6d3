#include "lib/check/plan_findings.h"

#include <fmt/format.h>

#include "lib/base/utf8.h"

namespace moelora {
void report_slot_memory(RuleContext& context) {
  if (!context.run().plan || !context.options().gpu_memory) return;
  const MemoryPlan& memory = context.run().plan->memory;
  const uint64_t limit = *context.options().gpu_memory;
  if (memory.total_bytes() <= limit) return;
  context.report(fmt::format("{} slots of {} each are {} on every GPU, which has {}", memory.slots,
                             size_text(memory.slot_bytes()), size_text(memory.total_bytes()),
                             size_text(limit)));
}

}  // namespace moelora
