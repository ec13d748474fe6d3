#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/check/run_rules.h"

namespace moelora {

// A rule whose findings the user has decided to live with.
struct Waiver {
  const Rule* rule;
  std::string reason;       // printed with every finding it takes
  std::string adapter;      // glob of the adapter's path; "" for all, the deployment included
  std::string from;         // who says so: "--ignore", ".moelora.json:3:5"
  std::string folder = {};  // what the glob's path is told from; "" the working folder
};

// A finding that a waiver took: not counted, never fails, but told.
struct Waived {
  Finding finding;
  std::string reason, from;
};

// Takes the findings that a waiver covers out of the judgement, in their order; the first waiver
// that covers one counts.
std::vector<Waived> take_waived(RuleResults& results, const Deployment& deployment,
                                std::span<const Waiver> waivers);

// The waivers that took nothing: stale, or meant for another run.
std::vector<const Waiver*> unused(std::span<const Waiver> waivers, std::span<const Waived> waived);

// "SGL021" or "pool-memory". Throws Error at `where` for a rule that does not exist.
const Rule& rule_named(std::string_view id_or_name, Location location);

// `*` is any run of characters (slashes too), `?` any one; the rest is literal.
bool glob_matches(std::string_view glob, std::string_view text);

}  // namespace moelora
