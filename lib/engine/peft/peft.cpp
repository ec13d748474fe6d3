#include "lib/engine/peft/peft.h"

namespace moelora {

bool is_fused_in_memory(const ModelSpec& spec) {
  return spec.hub.numbered && !spec.memory.numbered && !spec.peft.numbered;
}

bool peft_converts(const ModelSpec& spec) { return spec.peft.converts; }

Roles peft_roles(const ModelSpec& spec, const EngineChoice& peft) {
  const bool in_out = spec.memory.axes == ExpertAxes::in_out;
  bool transposed = false;  // read as [E, out, in]
  if (peft.has("0.19.1"))
    transposed = !spec.peft.is_transposed;
  else if (peft.has("0.19.0"))
    transposed = spec.peft.is_transposed;
  return transposed == in_out ? Roles::swapped : Roles::natural;
}

std::string release_of(const std::string& peft_version) {
  const size_t end = peft_version.find_first_not_of("0123456789.");
  std::string out = peft_version.substr(0, end);
  while (!out.empty() && out.back() == '.') out.pop_back();
  return EngineVersion::parse(out) ? out : "";
}

}  // namespace moelora
