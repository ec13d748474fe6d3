#include "lib/check/name_groups.h"

#include <fmt/core.h>

#include <algorithm>

namespace moelora {
namespace {

constexpr size_t kMostGroups = 20;

}  // namespace

void NameGroups::add(const std::string& what, const std::string& name) {
  const auto [at, added] = by_what_.emplace(what, groups_.size());
  if (added) groups_.push_back({what, {}});
  groups_[at->second].names.push_back(name);
}

void NameGroups::report(RuleContext& context,
                        const std::function<void(Finding&, const RuleContext&)>& refine) {
  if (groups_.size() > kMostGroups + 1) {
    Group rest{fmt::format("{} (and {} other faults of this kind)", groups_[kMostGroups].what,
                           groups_.size() - kMostGroups - 1),
               {}};
    for (size_t i = kMostGroups; i < groups_.size(); ++i)
      std::move(groups_[i].names.begin(), groups_[i].names.end(), std::back_inserter(rest.names));
    groups_.resize(kMostGroups);
    groups_.push_back(std::move(rest));
  }
  for (Group& group : groups_) {
    Finding& finding = context.report(std::move(group.names), std::move(group.what));
    if (refine) refine(finding, context);
  }
}

void NameGroups::report(RuleContext& context, Severity severity) {
  report(context, [=](Finding& finding, const RuleContext&) { finding.severity = severity; });
}

void report_tensors(RuleContext& context,
                    const std::function<std::string(const NamedTensor&)>& fault_of,
                    const std::function<void(Finding&, const RuleContext&)>& refine) {
  NameGroups groups;
  for (const NamedTensor& tensor : context.subject().parts.tensors)
    if (const std::string fault = fault_of(tensor); !fault.empty()) groups.add(fault, tensor.name);
  groups.report(context, refine);
}

std::string pluralized(size_t count, std::string_view noun) {
  return fmt::format("{} {}{}", count, noun, count == 1 ? "" : "s");
}

}  // namespace moelora
