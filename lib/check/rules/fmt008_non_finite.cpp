#include <fmt/core.h>

#include <cmath>

#include "lib/check/define_rule.h"
#include "lib/check/name_groups.h"
#include "lib/check/rule_context.h"
#include "lib/check/specimen.h"
#include "lib/numeric/stats/value_stats.h"

namespace moelora {
namespace {

// "3 NaN", "3 NaN and 1 infinity", "2 infinities".
std::string counts(int64_t nan, int64_t inf) {
  const std::string infinities = fmt::format("{} {}", inf, inf == 1 ? "infinity" : "infinities");
  if (nan == 0) return infinities;
  return fmt::format("{} NaN{}", nan, inf == 0 ? "" : " and " + infinities);
}

void check(RuleContext& context) {
  const Subject& subject = context.subject();
  int64_t nan = 0, inf = 0;
  std::vector<std::string> names;
  for (const auto& [name, stats] : subject.values) {
    if (stats.first_bad < 0) continue;
    nan += stats.nan;
    inf += stats.inf;
    names.push_back(name);
  }
  if (names.empty()) return;
  const Shape at =
      coordinates(subject.tensors.at(names[0]).shape(), subject.values.at(names[0]).first_bad);
  const size_t tensors = names.size();
  context.report(std::move(names), fmt::format("{} in {}, the first at {}", counts(nan, inf),
                                               pluralized(tensors, "tensor"), to_string(at)));
}

void break_it(Specimen& specimen) {
  const std::vector<float> values(4 * 64, std::nanf(""));
  specimen.set("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
               Tensor::of_f32({4, 64}, values));
}

}  // namespace

const Rule fmt008_non_finite = {
    .id = "FMT008",
    .name = "non-finite",
    .needs_values = true,
    .what = "A tensor holds NaN or an infinity.",
    .why =
        "No server looks at values: SGLang and vLLM load them and answer with NaN logits for "
        "every request of this adapter.",
    .fix = "Go back to a checkpoint from before training diverged.",
    .source = "oracle nan_in_b: served, NaN in the pool",
    .breaks = {.change = "fill one lora_A with NaN", .apply = break_it},
    .check = check,
};

}  // namespace moelora
