#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string_view>

#include "lib/engine/engines.h"

// The record of a rule, over std and the names of the engines alone. A rule's file includes
// lib/check/define_rule.h, its causes, and lib/check/rule_context.h for a check().
namespace moelora {

struct Cause;     // lib/engine/cause.h
struct Specimen;  // lib/check/specimen.h
class RuleContext;

enum class Severity : uint8_t { information, warning, error };
std::string_view severity_name(Severity severity);  // "error" | "warning" | "information"

// What repairs a finding.
enum class Remedy : uint8_t {
  by_hand,     // what Rule::fix says
  for_engine,  // lora-convert --for the finding's server, or the one that was chosen
  rewrite,  // the same; without a server lora-convert --to the layout it has (or Rule::remedy_to)
};

// The smallest change of a sound adapter that fires a rule.
struct Breaks {
  std::string_view specimen = "qwen3_moe_per_expert";  // id of a sound adapter
  std::string_view change = {};  // in words: "remove every v_proj tensor"; "" for no example
  std::string_view engine = {};  // to check it for: "sglang@0.5.10"; "" for the rule's, if any
  struct Member {
    std::string_view key, json;  // "use_rslora", "true"; without `json` the key is removed
  };
  Member config[3] = {};                         // of adapter_config.json
  Member base_config[6] = {};                    // of the base model's config.json
  std::array<std::string_view, 3> options = {};  // as --server-option takes them: "tp-size=3"
  void (*apply)(Specimen& specimen) = nullptr;   // last; lib/check/define_rule.h has edits for it
};

// One thing that can be wrong with an adapter. Each rule is one file in rules/ that defines one
// `const Rule`; the folder is the registry. Ids are permanent and never reused.
struct Rule {
  std::string_view id;    // "SGL002"
  std::string_view name;  // completes "allow ...": "lone-q-proj"
  // The cause of plan events that the rule explains, and a key of adapter_config.json ("r") that
  // findings of no tensor point at. A rule with a cause and no check() explains its events, one
  // finding each.
  const Cause* cause = nullptr;
  std::string_view config_key = {};
  Severity severity = Severity::error;  // the usual one; a finding may have another
  const Engine* engine = nullptr;       // &engines::NAME; null for every engine and none
  // Releases (of `engine`) between which the rule holds: since <= version < until. "" is open.
  std::string_view since = {}, until = {};
  // Not run, and listed as skipped, without a base model; nor is a rule that explains a plan.
  bool needs_base = false;
  bool needs_values = false;      // not run, and listed as skipped, when values are not looked at
  bool whole_deployment = false;  // run once, not once per adapter
  bool numeric = false;           // run only where the user asks for what it computes
  bool needs_source = false;      // not run, and listed as skipped, without a source adapter
  std::string_view what;          // one sentence: what fires it
  std::string_view why;           // what goes wrong, with the server's own text
  // What to do, in one instruction, where lora-convert does not repair it; fill_holes() fills it
  // in. What lora-convert repairs (`remedy`) is worked out, tried and printed as a command instead
  // (lib/check/add_repairs.h).
  std::string_view fix;
  Remedy remedy = Remedy::by_hand;
  std::string_view remedy_to = {};     // --to; with for_engine too
  std::string_view remedy_dtype = {};  // --dtype: "bf16"
  std::string_view source;             // issue, PR or code the fact is from
  Breaks breaks = {};
  // Rules that may fire on that example too, above information: consequences, not other faults.
  std::array<std::string_view, 2> implies = {};  // "" for none
  void (*check)(RuleContext& context) = nullptr;

  bool requires_base() const { return needs_base || (engine != nullptr && cause != nullptr); }
};

std::span<const Rule* const> all_rules();            // by id
const Rule* find_rule(std::string_view id_or_name);  // null when unknown
const Rule* find_rule(const Cause& cause);           // the one that explains it
std::string_view rule_name(const Cause& cause);      // its name; the cause's words without one

}  // namespace moelora
