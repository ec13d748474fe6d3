#include "lib/check/peft_runs.h"

#include <algorithm>

#include "lib/check/peft_facts.h"
#include "lib/check/served.h"

namespace moelora {

std::vector<const EngineRun*> peft_runs_since(const RuleContext& context,
                                              std::string_view release) {
  std::vector<const EngineRun*> out = chosen(context, "peft");
  std::erase_if(out, [&](const EngineRun* run) { return !peft_has(run->choice, release); });
  return out;
}

bool has_numbered_experts(const Subject& subject) {
  return std::any_of(subject.parts.tensors.begin(), subject.parts.tensors.end(),
                     [](const NamedTensor& tensor) {
                       return tensor.expert && tensor.expert->form == ExpertPlace::Form::numbered;
                     });
}

}  // namespace moelora
