#include <fmt/core.h>

#include <algorithm>

#include "lib/check/define_rule.h"
#include "lib/check/engine_findings.h"
#include "lib/check/rule_context.h"
#include "lib/engine/cause.h"

namespace moelora {
namespace {

const Layout* layout_of(const ExpertTensor& tensor) {
  const Layout* possible = nullptr;
  for (const Layout* layout : all_layouts()) {
    const Claim claim = layout->claim(tensor);
    if (claim == Claim::sure) return layout;
    if (claim == Claim::possible && possible == nullptr) possible = layout;
  }
  return possible;
}

// Names of tensors that no layout has, and one tensor of each layout.
struct Found {
  std::vector<std::string> unknown;
  std::vector<std::pair<const Layout*, const ExpertTensor*>> layouts;
};

Found look_at(const std::vector<ExpertTensor>& experts) {
  Found out;
  for (const ExpertTensor& tensor : experts) {
    const Layout* layout = layout_of(tensor);
    if (layout == nullptr) {
      out.unknown.push_back(tensor.name);
      continue;
    }
    if (std::none_of(out.layouts.begin(), out.layouts.end(),
                     [&](const auto& entry) { return entry.first == layout; }))
      out.layouts.emplace_back(layout, &tensor);
  }
  return out;
}

std::string shown(const ExpertTensor& tensor) {
  return fmt::format("{} {}", tensor.name, to_string(tensor.tensor.shape()));
}

void report_unknown(RuleContext& context, std::vector<std::string> names) {
  const bool token = std::any_of(names.begin(), names.end(), [](const std::string& name) {
    return name.find(".experts.shared.") != std::string::npos;
  });
  const Shape shape = context.subject().tensors.at(names.front()).shape();
  downgrade_if_served(
      context.report(
          std::move(names),
          fmt::format("{} is a routed-expert factor of no known layout{}", to_string(shape),
                      token ? ": \"shared\" stands where an expert's number "
                              "is expected (xorl)"
                            : "")),
      context);
}

void report_mixed(RuleContext& context, const Found& found) {
  std::vector<std::string> names;
  std::string message = "the expert factors are of several layouts:";
  for (const auto& [layout, tensor] : found.layouts) {
    message += fmt::format("{} {} ({})", names.empty() ? "" : ",", shown(*tensor), layout->id);
    names.push_back(tensor->name);
  }
  downgrade_if_served(context.report(std::move(names), std::move(message)), context);
}

void check(RuleContext& context) {
  const Subject& subject = context.subject();
  if (!subject.layout_error || subject.experts.empty()) return;
  Found found = look_at(subject.experts);
  if (!found.unknown.empty()) report_unknown(context, std::move(found.unknown));
  if (found.layouts.size() > 1) report_mixed(context, found);
}

// One layer's down_proj stacked in one 3-D tensor, the rest per expert.
void break_it(Specimen& specimen) {
  const std::string experts = "model.layers.0.mlp.experts.";
  for (int e = 0; e < 8; ++e) remove_tensors(specimen, fmt::format("{}{}.down_proj", experts, e));
  set_pair(specimen, experts + "down_proj", {8, 4, 24}, {8, 64, 4});
}

}  // namespace

const Rule fmt010_mixed_layouts = {
    .id = "FMT010",
    .name = "mixed-layouts",
    .cause = &cause::mixed_layouts,
    .what = "The routed-expert factors of one file are of two layouts, or of none that is known.",
    .why =
        "Readers recognize a layout by its names and read the whole file in it: what is in the "
        "other "
        "one is dropped, overwrites its neighbours or stops the load, by chance of the order of "
        "names. Megatron-Bridge wrote such files for shared outer factors (a 3-D lora_A with "
        "numbered lora_B).",
    .fix = "Export the adapter again in one layout (Megatron-Bridge: expand_shared_outer).",
    .source =
        "exporters: Megatron-Bridge 3958, xorl \"Mixed shared and per-expert MoE checkpoint "
        "entries\"; SGLang mem_pool.py",
    .breaks = {.change = "stack the down_proj of one layer in one 3-D tensor", .apply = break_it},
    .check = check,
};

}  // namespace moelora
