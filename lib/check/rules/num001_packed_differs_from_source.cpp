#include <fmt/core.h>

#include "lib/adapter/dialect.h"
#include "lib/base/error.h"
#include "lib/check/define_rule.h"
#include "lib/check/forward.h"
#include "lib/check/rule_context.h"
#include "lib/check/specimen.h"
#include "lib/compare/packed_check.h"
#include "lib/compare/verify_conversion.h"

namespace moelora {
namespace {

packed::AdapterInput input_of(const Subject& as_given) {
  const Subject& subject = in_peft_form(as_given);
  const packed::Reading reading =
      subject.loaded ? reading_of(subject.loaded->adapter) : packed::Reading();
  return {subject.tensors, subject.config, subject.given, reading};
}

std::vector<std::string> in_file(const Subject& as_given, std::vector<std::string> names) {
  const Subject& subject = in_peft_form(as_given);
  for (std::string& name : names)
    if (const auto own = subject.own_names.find(name); own != subject.own_names.end())
      name = own->second;
  return names;
}

packed::Report compared(const RuleContext& context) {
  packed::CheckOptions options;
  options.spec = context.spec();
  options.threads = context.deployment().threads;
  return packed::check_packed(input_of(context.subject()), input_of(*context.deployment().source),
                              options);
}

// The form the adapter is in, as --to names it.
std::string_view form_of(const Subject& subject) {
  if (subject.dialect != nullptr && subject.dialect->write != nullptr) return subject.dialect->id;
  return (subject.layout != nullptr ? *subject.layout : layouts::peft_linear).id;
}

// The packing done again, and verified.
std::string packed_again(const RuleContext& context) {
  Repair repair = repair_of(context.deployment(), *context.deployment().source);
  repair.to = form_of(context.subject());
  return repair.command() + " --verify";
}

void report_same_products(RuleContext& context, const packed::Report& report) {
  Finding& finding = context.report(
      fmt::format("{} of {} pairs have other values than the source's, and the same product to "
                  "1e-07 of its norm",
                  report.same_product, report.same_bits + report.same_product + report.different));
  finding.severity = Severity::information;
  finding.fix = "";
}

// Who asks for a comparison must not take one that could not be made for a sound adapter.
void check(RuleContext& context) try {
  const packed::Report report = compared(context);
  for (const packed::Fault& fault : report.faults) {
    Finding& finding = context.report(in_file(context.subject(), fault.tensors), fault.text());
    finding.fix = packed_again(context);
    if (fault.mistake == Mistake::rounding) finding.severity = Severity::warning;
  }
  if (report.same_product > 0) report_same_products(context, report);
  const std::optional<StageReport>& forward = context.subject().forward;
  if (report.sound() && forward && !forward->differences.empty())
    context.report(differences_text(*forward)).fix = packed_again(context);
} catch (const MachineError&) {
  throw;
} catch (const Error& error) {
  Finding& finding =
      context.report(fmt::format("cannot be compared with its source: {}", error.what()));
  finding.fix = error.hint();
  finding.unchecked = true;
}

// The first two experts of the first layer, exchanged; made from what they were before.
void break_it(Specimen& specimen) {
  specimen.source = specimen.adapter();
  const std::string marker = ".mlp.experts.0.";
  const TensorMap before = specimen.tensors();
  for (const auto& [name, tensor] : before) {
    const size_t at = name.find(marker);
    if (at == std::string::npos) continue;
    std::string other = name;
    other[at + marker.size() - 2] = '1';
    specimen.set(name, before.at(other));
    specimen.set(other, tensor);
  }
}

}  // namespace

const Rule num001_packed_differs_from_source = {
    .id = "NUM001",
    .name = "packed-differs-from-source",
    .numeric = true,
    .needs_source = true,
    .what = "The adapter computes something else than the adapter it was made from.",
    .why =
        "Experts rotated, gate and up exchanged or interleaved, a scale lost or applied twice, "
        "columns of a stacked lora_B in the other order: no shape differs, no server complains, "
        "and the model answers fluently and wrongly. Every element is derived from the source "
        "again, by code that works out names, places, casts and scales by itself, and compared by "
        "its bits; other factors of the same product (a distance below 1e-7 of its norm) are taken "
        "for the same; what is left is named. Last, both run through their layers: what each "
        "projection of each expert adds must be the same number.",
    .fix = "lora-convert adapter SOURCE OUT --to LAYOUT --verify",
    .source =
        "facts on 28 faults of packers that public kernel tests pass; unsloth #6930; "
        "Megatron-Bridge peft_bridge.py; SGLang PR 27274",
    .breaks = {.change = "exchange experts 0 and 1 of every layer, and name the adapter before "
                         "that as --source",
               .apply = break_it},
    .check = check,
};

}  // namespace moelora
