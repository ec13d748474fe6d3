#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lib/check/repair.h"
#include "lib/check/subject/base_headers.h"
#include "lib/check/subject/subject.h"
#include "lib/engine/engine.h"

namespace moelora {

// An engine as the user chose it, and what it would do with the deployment.
struct EngineRun {
  EngineChoice choice;
  ServerOptions options;
  std::optional<ServerPlan>
      plan;                 // nullopt: no base model, no loader to simulate, or `not_planned`
  std::string not_planned;  // why
  bool unreadable = false;  // because an adapter could not be read, which its own findings say

  const AdapterPlan* plan_of(size_t adapter) const {  // null without one
    return plan && adapter < plan->adapters.size() ? &plan->adapters[adapter] : nullptr;
  }
};

// Adapters that one server is to serve, with all that rules look at.
struct Deployment {
  std::vector<Subject> adapters;
  std::string name;  // the base, where there are other deployments beside this; else ""
  std::optional<BaseModel> base;
  std::string base_class;           // of a base whose family is not known: "Qwen3ForCausalLM"
  std::optional<Error> base_error;  // why the base that was given or named is not known
  std::shared_ptr<const BaseHeaders> base_headers;  // null: its weights are not at hand
  std::vector<EngineRun> engines;
  ServerOptions options;
  LoadOptions load;               // how they are read; `load.base` is what --base is told
  bool numeric = false;           // rules that compute are run too
  std::optional<Subject> source;  // what the adapters were made from
  int threads = 0;                // for rules that compute; 0: all
};

// Whether the files of an adapter could not be read, so that nothing can be planned or computed.
bool is_unreadable(const Subject& adapter);

// A lora-convert that reads this adapter as it was read here, with nothing said of its output.
Repair repair_of(const Deployment& deployment, const Subject& adapter);

// Fills the plan of every engine run. A plan that cannot be made says why in `not_planned`.
void plan_engines(Deployment& deployment);

}  // namespace moelora
