#include <fmt/core.h>

#include "lib/check/define_rule.h"
#include "lib/check/name_groups.h"
#include "lib/check/rule_context.h"
#include "lib/check/specimen.h"

namespace moelora {
namespace {

bool is_fp8(DType dtype) { return dtype_name(dtype).starts_with("F8"); }

std::string text_of(DType dtype) {
  if (dtype == DType::F64)
    return "is F64: servers round it to the model's dtype when they load it, and it is four times "
           "as large as BF16";
  if (is_fp8(dtype))
    return fmt::format("is {}: an FP8 factor needs scales, which no reader looks for",
                       dtype_name(dtype));
  return fmt::format("is {}: a factor holds floats, quantized or packed values are read as numbers",
                     dtype_name(dtype));
}

void check(RuleContext& context) {
  NameGroups wide, other;
  for (const NamedTensor& tensor : context.subject().parts.tensors) {
    if (!tensor.is_factor()) continue;
    if (tensor.dtype == DType::F64)
      wide.add(text_of(tensor.dtype), tensor.name);
    else if (!is_float(tensor.dtype))
      other.add(text_of(tensor.dtype), tensor.name);
  }
  wide.report(context, Severity::warning);
  other.report(context, [](Finding& finding, const RuleContext&) {
    finding.severity = Severity::error;  // a server that takes them computes nonsense
    finding.remedy = Remedy::by_hand;    // and a cast keeps what was read wrongly
  });
}

void break_it(Specimen& specimen) {
  specimen.set("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight",
               specimen.zeros({4, 64}, DType::I8));
}

}  // namespace

const Rule fmt016_unsupported_dtype = {
    .id = "FMT016",
    .name = "unsupported-dtype",
    .what = "A factor is of another type than F32, F16 or BF16.",
    .why =
        "SGLang and vLLM cast whatever they find to the model's dtype without looking: integers "
        "and FP8 codes become numbers, their scales are nobody's.",
    .fix = "Save the adapter again without quantizing it.",
    .remedy = Remedy::rewrite,
    .remedy_dtype = "bf16",
    .source = "oracle vLLM: fp8, int8 and fp64 accepted",
    .breaks = {.change = "make one lora_A I8", .apply = break_it},
    .check = check,
};

}  // namespace moelora
