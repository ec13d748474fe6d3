// SGLang joins q, k and v, gate and up, and MLA's two down-projections into one buffer each, and
// fails where a part that it starts from is missing. A pair of zeros stands in (facts: sglang.md
// 1.5, 1.6).

#include <fmt/format.h>

#include <array>

#include "lib/engine/fit/step.h"

namespace moelora::fit {
namespace {

// Where `present` is adapted and the module beside it is not, that one is needed.
struct Need {
  std::string_view present, absent;
};
constexpr std::array<Need, 7> kNeeds = {{{"q_proj", "v_proj"},
                                         {"k_proj", "q_proj"},
                                         {"k_proj", "v_proj"},
                                         {"v_proj", "q_proj"},
                                         {"up_proj", "gate_proj"},
                                         {"q_a_proj", "kv_a_proj_with_mqa"},
                                         {"kv_a_proj_with_mqa", "q_a_proj"}}};

DensePair zeros_beside(const DensePair& pair, const LinearSpec& linear) {
  const int64_t rank = factor_rank(pair.a, Side::A);
  return {Tensor::zeros(pair.a.dtype(), {rank, linear.in}),
          Tensor::zeros(pair.b.dtype(), {linear.out, rank}), pair.scaling, false};
}

void run(FitContext& context) {
  std::map<std::string, DensePair> added;
  for (const auto& [module, pair] : context.adapter.dense) {
    const size_t dot = module.rfind('.');
    if (dot == std::string::npos) continue;
    for (const Need& need : kNeeds) {
      if (std::string_view(module).substr(dot + 1) != need.present) continue;
      const std::string other = module.substr(0, dot + 1) + std::string(need.absent);
      const LinearSpec* linear = context.spec.find_linear(other);
      if (linear != nullptr && context.adapter.dense.count(other) == 0)
        added.emplace(other, zeros_beside(pair, *linear));
    }
  }
  if (added.empty()) return;
  std::vector<std::string> names;
  for (const auto& entry : added) names.push_back(entry.first);
  context.adapter.dense.merge(added);
  context.note(whole_groups.name,
               fmt::format("{} loads these only with their siblings: zero factors for {} (exact)",
                           context.title(), some_of(names)));
}

}  // namespace

const FitStep whole_groups = {
    "whole-groups", "sglang",
    "q without v, k or v without q, up without gate, one of MLA's q_a and kv_a: zero factors for "
    "the missing one",
    run};

}  // namespace moelora::fit
