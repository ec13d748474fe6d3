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
  std::string folder = {};  // what the glob's path is relative to; "" the working folder
};

// A finding that a waiver took: not counted, never fails, but reported.
struct Waived {
  Finding finding;
  std::string reason, from;
};

// Takes the findings that a waiver covers out of the results, in their order; the first waiver
// that covers one counts. That a server was not judged at all (NUM003: no base model, an unknown
// class) is covered where the waiver names every adapter that it is said of, and not by the way.
std::vector<Waived> take_waived(RuleResults& results, const Deployment& deployment,
                                std::span<const Waiver> waivers);

// The waivers that took nothing: stale, or meant for another run.
std::vector<const Waiver*> unused(std::span<const Waiver> waivers, std::span<const Waived> waived);

// Why it took nothing, for people: "--ignore FMT004: nothing to ignore: FMT004 found nothing".
// `results`: what no waiver took.
std::string unused_text(const Waiver& waiver, const RuleResults& results);

// "SGL021" or "pool-memory". Throws Error at `where` for a rule that does not exist.
const Rule& rule_named(std::string_view id_or_name, Location location);

// `*` is any run of characters (slashes too), `?` any one; the rest is literal.
bool glob_matches(std::string_view glob, std::string_view text);

inline constexpr const char* kProjectFile = ".moelora.json";

// What a repository says once for all runs of lora-validate (schemas/project.schema.json):
//   {"base": "...", "engines": ["sglang@0.5.18"], "server_options": {"tp-size": 2},
//    "ignore": [{"rule": "SGL021", "reason": "...", "adapter": "adapters/big*"}]}
// Every key may be absent. Options of the command line replace base and engines, and win over
// server options.
struct Project {
  std::string base;                         // a path below the file's folder, or a hub name
  std::vector<std::string> engines;         // as --engine takes them
  std::vector<std::string> server_options;  // "KEY=VALUE", as --server-option takes them
  std::vector<Waiver> waivers;
};

// The project file that counts in `folder`: its own, else one of the folders above it up to the
// repository's root (the first that holds .git; without one none is looked at), or up to one that
// this user may not search. A folder that is an adapter has none: what is downloaded waives
// nothing. Relative to `folder`; "" for none. Throws MachineError where a folder cannot be looked
// at: without the file's engines and base another thing would be checked.
std::string find_project_file(const std::string& folder);

// Strict: an unknown key, a wrong type, an ignore without a reason and a rule that does not exist
// are each an Error at "PATH:LINE:COLUMN".
Project read_project(const std::string& path);

}  // namespace moelora
