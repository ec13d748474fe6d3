#pragma once

#include <string>
#include <vector>

#include "lib/check/ignore.h"
#include "lib/check/run_rules.h"

namespace moelora {

// Adapters that one server is to serve, as a command line names them.
struct ValidateRequest {
  std::vector<std::string> adapters;  // as find_adapters takes them (lib/adapter/adapter_search.h)
  bool recursive = false;             // search folders
  std::vector<EngineChoice> engines;
  ServerOptions options;
  SubjectOptions subject;  // load.base: what the server serves; "" to believe the adapters
  std::vector<Waiver> waivers;
  bool numeric = false;  // run the rules that compute too
  std::string source;    // what the adapters were made from; "" unknown. REQUIRES numeric
  DeviceChoice device = DeviceChoice::automatic;  // where forwards run
  bool forward = true;  // run source and adapter through their layers, beside comparing them
  // Each adapter is the only one of its server: what is judged does not depend on the others, and
  // each is let go when it is judged. Else those of a base are one deployment.
  bool alone = false;
  std::string cache;  // a folder of verdicts to keep (lib/check/many/clean_cache.h); "" none.
                      // REQUIRES alone
  JobControl job;
};

struct ValidationReport {
  // One for each base, as the adapters first name them; one for each adapter judged alone.
  std::vector<Deployment> deployments;
  std::vector<JudgedAlone> alone;  // of each deployment; empty where they were judged together
  RuleResults results;             // of all; without what was waived
  std::vector<Waived> waived;
};

}  // namespace moelora
