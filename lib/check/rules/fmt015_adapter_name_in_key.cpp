#include <fmt/core.h>

#include "lib/base/utf8.h"
#include "lib/check/define_rule.h"
#include "lib/check/engine_findings.h"
#include "lib/check/name_groups.h"
#include "lib/check/rule_context.h"

namespace moelora {
namespace {

// "default" of "....lora_A.default.weight"; "" for the usual names.
std::string_view adapter_name(std::string_view name) {
  constexpr std::string_view kEnd = ".weight";
  if (!name.ends_with(kEnd)) return {};
  name.remove_suffix(kEnd.size());
  const size_t dot = name.rfind('.');
  if (dot == std::string_view::npos) return {};
  const std::string_view before = name.substr(0, dot);
  return before.ends_with(".lora_A") || before.ends_with(".lora_B") ? name.substr(dot + 1)
                                                                    : std::string_view();
}

// The name that PEFT gives an adapter which is loaded without one: it finds such keys.
constexpr std::string_view kPeftsOwn = "default";

void check(RuleContext& context) {
  const auto fault = [](const NamedTensor& tensor) -> std::string {
    const std::string_view adapter = adapter_name(tensor.name);
    if (!tensor.is_factor() || adapter.empty()) return "";
    return fmt::format("holds the adapter's name \"{}\" between lora_A or lora_B and weight",
                       printable(adapter));
  };
  report_tensors(context, fault, [](Finding& finding, const RuleContext& c) {
    if (adapter_name(finding.where) == kPeftsOwn)
      set_severity_by_engine(finding, c, {&engines::vllm});
    else
      set_severity_by_engine(finding, c, {&engines::vllm, &engines::peft});
    if (is_whole_for_peft(c)) finding.severity = Severity::information;  // names of joined experts
  });
}

}  // namespace

const Rule fmt015_adapter_name_in_key = {
    .id = "FMT015",
    .name = "adapter-name-in-key",
    .what = "Tensor names hold the adapter's name: \"lora_A.default.weight\".",
    .why =
        "That is what model.state_dict() has; PEFT's save_pretrained takes the name out and its "
        "loader puts it in again, so that these match nothing, but for the name \"default\". vLLM: "
        "\"... is unsupported LoRA weight\". SGLang does not look at what follows lora_A.",
    .fix = "Save the adapter again without the adapter's name: model.save_pretrained does.",
    .remedy = Remedy::rewrite,
    .source = "vLLM parse_fine_tuned_lora_name; peft save_and_load.py; PEFT 0.20.0 to 0.21.2, run",
    .breaks = {.change = "write .lora_A.default.weight for .lora_A.weight",
               .engine = "vllm",
               .apply =
                   [](Specimen& specimen) {
                     rename_tensors(specimen, ".weight", ".default.weight");
                   }},
    .implies = {"VLM004"},
    .check = check,
};

}  // namespace moelora
