#include <fmt/core.h>

#include <cmath>

#include "lib/base/cast.h"
#include "lib/check/define_rule.h"
#include "lib/check/rule_context.h"
#include "lib/check/specimen.h"

namespace moelora {
namespace {

constexpr double kMostF16 = 65504;

// What SGLang multiplies with the scale before it casts: lora_B of experts.
bool is_scaled(const TensorFate& fate) { return fate.buffer.ends_with("_moe.B"); }

void check(RuleContext& context) {
  const Subject& subject = context.subject();
  if (context.plan() == nullptr || !subject.parsed_config) return;
  const AdapterConfig& config = *subject.parsed_config;
  const double scale = std::fabs(config.lora_alpha) / static_cast<double>(config.r);
  std::vector<std::string> names;
  double most = 0;
  for (const TensorFate& fate : context.plan()->fates) {
    const auto tensor = subject.tensors.find(fate.tensor);
    const auto stats = subject.values.find(fate.tensor);
    if (!is_scaled(fate) || tensor == subject.tensors.end() || stats == subject.values.end())
      continue;
    if (tensor->second.dtype() != DType::F16 || stats->second.max_abs * scale <= kMostF16) continue;
    most = std::max(most, stats->second.max_abs);
    names.push_back(fate.tensor);
  }
  if (names.empty()) return;
  context.report(std::move(names),
                 fmt::format("values up to {:.4g} times the scale {:.4g} are more than F16 holds "
                             "(65504): infinities in the server's pool",
                             most, scale));
}

void break_it(Specimen& specimen) {
  for (auto& [name, tensor] : specimen.tensors())
    if (name.find("down_proj.lora_B") != std::string::npos)
      tensor = cast_tensors({{name, tensor}}, DType::F16).at(name);
  specimen.config().set("lora_alpha", 8e6);
}

}  // namespace

const Rule sgl035_f16_overflow = {
    .id = "SGL035",
    .name = "f16-overflow",
    .engine = &engines::sglang,
    .needs_base = true,
    .needs_values = true,
    .what = "lora_B of experts in F16 overflows when SGLang multiplies it with the scale.",
    .why =
        "SGLang folds lora_alpha / r into lora_B of experts in the file's own type, before it "
        "casts to the model's: what exceeds 65504 in F16 is infinite in the pool, and every token "
        "of that expert is NaN. Nothing says so.",
    .fix = "Cast the factors to BF16, and serve a BF16 base model.",
    .remedy = Remedy::rewrite,
    .remedy_dtype = "bf16",
    .source = "SGLang lora/mem_pool.py; measured: 145 of 256 values infinite",
    .breaks = {.change = "store lora_B of down_proj in F16 and scale it by two million",
               .apply = break_it},
    .implies = {"FMT020"},
    .check = check,
};

}  // namespace moelora
