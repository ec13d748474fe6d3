#pragma once

#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/check/rule.h"

namespace moelora {

// How the servers that the user chose bear on the rules of no engine (FMT, CFG, MOD).

// The chosen runs of one engine.
std::vector<const EngineRun*> chosen(const RuleContext& context, std::string_view engine);

// For what only some engines mind, "E (sglang)" in the catalogue: an error of the chosen one that
// minds; a warning where no engine was chosen, since one of them may serve it; information where
// only others were.
void minded_by(Finding& finding, const RuleContext& context,
               std::initializer_list<std::string_view> engines);

// The same where only some releases mind: `mind` are the chosen runs that do.
void minded_by(Finding& finding, const RuleContext& context,
               std::span<const EngineRun* const> mind);

// For what is wrong with the files whoever reads them: an error becomes a warning where engines
// were chosen and each of them has a plan that refuses nothing and puts all of finding.names where
// they belong (without names: that has no event at all). What a server serves whole is no error,
// though another one, or PEFT, may stumble over it.
void unless_served(Finding& finding, const RuleContext& context);

}  // namespace moelora
