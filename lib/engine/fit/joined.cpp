#include "lib/engine/fit/joined.h"

namespace moelora::fit {
namespace {

void by_form(FitContext& context) {
  join_or_part(context, [&](const JoinedModule& module) { return joining_of(module, context); });
}

}  // namespace

const FitStep joined_modules = {kJoinedName, kJoinedSummary, by_form, true};

Joining joining_of(const JoinedModule& module, const FitContext& context) {
  const bool hub = in_hub_names(context.spec(), context.layout.form);
  return moelora::joining_of(module, hub ? Form::hub : Form::memory);
}

void join_or_part(FitContext& context, const std::function<Joining(const JoinedModule&)>& wanted) {
  for (std::string& text :
       moelora::join_or_part(context.spec(), context.adapter, context.options.threads, wanted))
    context.note(kJoinedName, std::move(text));
}

}  // namespace moelora::fit
