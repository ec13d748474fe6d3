// SGLang multiplies an expert's lora_B by the scale in the adapter's own type, and only then casts
// it: in F16 what passes 65504 becomes an infinity (facts: goldens/oracles/sglang.md 3.4,
// measured). F32 holds every F16 value and every such product.

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <vector>

#include "lib/base/cast.h"
#include "lib/base/parallel.h"
#include "lib/engine/fit/step.h"

namespace moelora::fit {
namespace {

constexpr double kLargestF16 = 65504;

std::vector<Tensor*> narrow_parts(Adapter& adapter) {
  std::vector<Tensor*> out;
  for (auto& entry : adapter.experts)
    for (Tensor& part : entry.second.b.parts)
      if (part.rank() != 0 && part.dtype() == DType::F16) out.push_back(&part);
  return out;
}

bool overflows(const std::vector<Tensor*>& parts, double scale, int threads) {
  std::atomic<bool> found = false;
  parallel_for(static_cast<int64_t>(parts.size()), threads, [&](int64_t i, int) {
    if (found) return;
    for (const double value : read_double(*parts[static_cast<size_t>(i)]))
      if (std::isfinite(value) && std::fabs(value * scale) > kLargestF16) found = true;
  });
  return found;
}

// Gate, up and down alike, as SGLang joins gate and up.
void widen(Adapter& adapter) {
  std::map<SourcePtr, SourcePtr> done;
  for (auto& entry : adapter.experts)
    for (Tensor& part : entry.second.b.parts)
      if (part.rank() != 0)
        part = part.map_sources(DType::F32, [&](const SourcePtr& source) {
          SourcePtr& slot = done[source];
          if (!slot) slot = cast_source(source, DType::F32);
          return slot;
        });
}

void run(FitContext& context) {
  const std::vector<Tensor*> parts = narrow_parts(context.adapter);
  if (parts.empty() || !overflows(parts, context.scale, context.options.threads)) return;
  widen(context.adapter);
  context.note(
      wide_range.name,
      fmt::format("SGLang scales lora_B of experts in F16, where some of it times {} would be "
                  "infinite: those factors become F32 (exact)",
                  context.scale));
}

}  // namespace

const FitStep wide_range = {
    "wide-range", "sglang",
    "F16 experts whose lora_B times the scale passes 65504: F32, which holds it", run};

}  // namespace moelora::fit
