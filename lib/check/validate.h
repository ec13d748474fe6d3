#pragma once

#include <string>
#include <vector>

#include "lib/check/ignore.h"
#include "lib/check/run_rules.h"

namespace moelora {

// Adapters that one server is to serve, as a command line names them.
struct ValidateRequest {
  std::vector<std::string> adapters;  // folders, weights files or adapter_config.json in one
  std::vector<EngineChoice> engines;
  ServerOptions options;
  SubjectOptions subject;  // load.base: what the server serves; "" to believe the adapters
  std::vector<Waiver> waivers;
  bool numeric = false;  // run the rules that compute too
  std::string source;    // what the adapters were made from; "" unknown. REQUIRES numeric
  DeviceChoice device = DeviceChoice::automatic;  // where forwards run
  JobControl job;
};

struct ValidationReport {
  Deployment deployment;
  RuleResults results;  // without what was waived
  std::vector<Waived> waived;
};

// Reads, plans and runs every rule. What is wrong with an adapter is a finding; throws Error only
// for what the user named wrongly: load.base, load.from, load.model_specs, a source that cannot be
// read, a device that is not there.
// Without load.base the base is the one that all adapters name in base_model_name_or_path, where it
// is a known hub name; none where they disagree, as one server has one base.
ValidationReport validate(const ValidateRequest& request);

}  // namespace moelora
