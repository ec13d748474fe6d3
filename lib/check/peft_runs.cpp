#include "lib/check/peft_runs.h"

#include <algorithm>

#include "lib/check/served.h"
#include "lib/engine/peft/peft.h"

namespace moelora {

std::vector<const EngineRun*> peft_runs_since(const RuleContext& context,
                                              std::string_view release) {
  std::vector<const EngineRun*> out = chosen(context, "peft");
  std::erase_if(out, [&](const EngineRun* run) { return !run->choice.has(release); });
  return out;
}

bool has_numbered_experts(const Subject& subject) {
  return std::any_of(subject.parts.tensors.begin(), subject.parts.tensors.end(),
                     [](const NamedTensor& tensor) {
                       return tensor.expert && tensor.expert->form == ExpertPath::Form::numbered;
                     });
}

}  // namespace moelora
