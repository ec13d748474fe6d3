#include <fmt/core.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "lib/base/utf8.h"
#include "lib/check/define_rule.h"
#include "lib/check/name_groups.h"
#include "lib/check/rule_context.h"
#include "lib/io/json.h"

namespace moelora {
namespace {

// "bfloat16": the dtype of a base model's weights as its config.json says ("dtype", older
// "torch_dtype", at the top or in text_config); "" when it does not.
std::string base_dtype(const Json& config) {
  for (const Json* at : {&config, config.find("text_config")}) {
    if (at == nullptr) continue;
    for (std::string_view key : {"dtype", "torch_dtype"})
      if (const Json* value = at->find(key); value != nullptr && value->is(Json::Kind::string))
        return value->as_string();
  }
  return "";
}

constexpr double kMostF16 = 65504;

std::string what_is_lost(double most) {
  if (most == 0) return "nothing is lost: every value is one of BF16 already";
  if (std::isinf(most)) return "values beyond BF16 become infinities";
  return fmt::format("a value changes by {:.2g} % at most", most * 100);
}

void report_wide(RuleContext& context) {
  const Subject& subject = context.subject();
  size_t count = 0;
  uint64_t bytes = 0;
  double most = 0;
  for (const NamedTensor& tensor : subject.parts.tensors) {
    if (!tensor.is_factor() || tensor.dtype != DType::F32) continue;
    ++count;
    bytes += static_cast<uint64_t>(tensor.elements()) * 4;
    if (const auto stats = subject.values.find(tensor.name); stats != subject.values.end())
      most = std::max(most, stats->second.max_bf16_error);
  }
  if (count == 0) return;
  Finding& finding = context.report(
      fmt::format("{} of F32 beside a BF16 base model, {}: servers cast them to BF16, {}",
                  pluralized(count, "factor"), size_text(bytes), what_is_lost(most)));
  finding.file = subject.main_file;
  if (std::isinf(most)) finding.severity = Severity::error;
}

// What a server multiplies lora_B with when it loads it, in F16.
void report_overflow(RuleContext& context, bool f16_base) {
  const Subject& subject = context.subject();
  if (!subject.parsed_config) return;
  std::vector<std::string> names;
  double most = 0;
  for (const FactorPair& pair : subject.parts.pairs) {
    const NamedTensor* b = subject.parts.b(pair);
    if (b == nullptr || !(f16_base || b->dtype == DType::F16)) continue;
    const auto stats = subject.values.find(b->name);
    if (stats == subject.values.end()) continue;
    const double scaled =
        std::fabs(subject.parsed_config->scaling(b->module).value()) * stats->second.max_abs;
    if (scaled > kMostF16) names.push_back(b->name);
    most = std::max(most, scaled);
  }
  if (names.empty()) return;
  const size_t count = names.size();
  context
      .report(std::move(names),
              fmt::format("times its scale is more than F16 holds (65504): up to {:.4g}, in {}; a "
                          "server that folds the scale in gets infinities",
                          most, pluralized(count, "tensor")))
      .severity = Severity::error;
}

void check(RuleContext& context) {
  const std::string dtype = base_dtype(context.deployment().base->config);
  if (dtype == "bfloat16") report_wide(context);
  report_overflow(context, dtype == "float16");
}

}  // namespace

const Rule fmt020_wide_dtype = {
    .id = "FMT020",
    .name = "wide-dtype",
    .severity = Severity::information,
    .needs_base = true,
    .needs_values = true,
    .what =
        "Factors are F32 and the base model BF16; an error where a lora_B times its scale "
        "overflows F16.",
    .why =
        "PEFT trains and saves factors in F32 by default; servers cast them to the model's "
        "dtype when they load them. SGLang multiplies an expert's lora_B by the scale in the "
        "file's dtype first, so that a large F16 value becomes an infinity.",
    .fix = "Cast the factors to the base model's dtype (--dtype bf16).",
    .remedy = Remedy::rewrite,
    .remedy_dtype = "bf16",
    .source = "peft autocast_adapter_dtype; oracle f16_overflow: inf in the pool",
    .breaks = {.change = "nothing: its factors are F32 and the base model is BF16",
               .config = {{"r", "4"}}},
    .check = check,
};

}  // namespace moelora
