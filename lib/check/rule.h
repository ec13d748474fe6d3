#pragma once

#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/check/base_headers.h"
#include "lib/check/finding.h"
#include "lib/check/specimen.h"
#include "lib/check/subject.h"
#include "lib/engine/engine.h"
#include "lib/model/base_model.h"

namespace moelora {

// An engine as the user chose it, and what it would do with the deployment.
struct EngineRun {
  EngineChoice choice;
  ServerOptions options;
  std::optional<ServerPlan>
      plan;                 // nullopt: no base model, no loader to simulate, or `not_planned`
  std::string not_planned;  // why
  bool unreadable = false;  // because an adapter could not be read, which its own findings tell
};

struct Deployment {
  std::vector<Subject> adapters;
  std::optional<BaseModel> base;
  std::shared_ptr<const BaseHeaders> base_headers;  // null: its weights are not at hand
  std::vector<EngineRun> engines;
  ServerOptions options;
  bool numeric = false;           // rules that compute are run too
  std::optional<Subject> source;  // what the adapters were made from
  int threads = 0;                // for rules that compute; 0: all
};

class RuleContext;

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
  Severity severity = Severity::error;  // the usual one; a finding may say another
  std::string_view engine = {};         // "sglang", "vllm", "peft"; "" for every engine and none
  // Releases (of `engine`) between which the rule holds: since <= version < until. "" is open.
  std::string_view since = {}, until = {};
  bool needs_base = false;        // not run, and listed as skipped, without a base model
  bool needs_values = false;      // not run, and listed as skipped, when values are not looked at
  bool whole_deployment = false;  // run once, not once an adapter
  bool numeric = false;           // run only where the user asks for what it computes
  bool needs_source = false;      // not run, and listed as skipped, without a source adapter
  std::string_view what;          // one sentence: what fires it
  std::string_view why;           // what goes wrong, with the server's own text
  std::string_view fix;           // one command or instruction; fill_holes() fills it in
  std::string_view source;        // issue, PR or code the fact is from
  Breaks breaks = {};             // the smallest change of a sound adapter that fires it
  // Rules that may fire on that example too, above information: consequences, not other faults.
  std::span<const std::string_view> implies = {};
  void (*check)(RuleContext& context) = nullptr;
};

std::span<const Rule* const> all_rules();            // by id
const Rule* find_rule(std::string_view id_or_name);  // null when unknown
const Rule* find_rule(const Cause& cause);           // the one that explains it
std::string_view rule_name(const Cause& cause);      // its name; the cause's words without one

// A fix with {adapter}, the adapter's path, and {layout}, the id of its experts' layout
// (peft-linear for one without), filled in.
std::string fill_holes(std::string_view fix, std::string_view adapter, std::string_view layout);

// What a rule sees, and where it reports.
//
// Rules of no engine (FMT, CFG, MOD) run once, whatever servers the user chose, and look at those
// for their severity (lib/check/served.h): what only some servers mind ("E (sglang)" in the
// catalogue) is an error for a chosen one, a warning where none was chosen and information where
// only others were; a fault of the files that every chosen server serves whole is a warning.
class RuleContext {
 public:
  RuleContext(const Rule& rule, const Deployment& deployment, std::optional<size_t> adapter,
              const EngineRun* run, std::vector<Finding>& findings)
      : rule_(rule), deployment_(deployment), adapter_(adapter), run_(run), findings_(findings) {}

  const Rule& rule() const { return rule_; }
  const Deployment& deployment() const { return deployment_; }
  // REQUIRES a rule of one adapter.
  const Subject& subject() const { return deployment_.adapters[*adapter_]; }
  // REQUIRES a rule of an engine.
  const EngineRun& run() const { return *run_; }
  const ServerOptions& options() const { return run_ ? run_->options : deployment_.options; }
  // Of this adapter by the rule's engine; null without a plan.
  const AdapterPlan* plan() const;
  const ModelSpec* spec() const;  // null without a base model

  // A new finding with the rule's severity, engine, adapter and fix; the caller refines it. The
  // reference holds until the next call.
  Finding& report(std::string message);
  // ... at a tensor or module, all of `names` concerned.
  Finding& report(std::vector<std::string> names, std::string message);
  // ... at a key of adapter_config.json ("rank_pattern"), with its line.
  Finding& report_config(std::string_view key, std::string message);

  // check() of the rule, or explain_plan() for a rule without one.
  void run_rule();

  // One finding for every event of the plan whose cause is the rule's: its tensors, detail and the
  // server's text. `refine` is called with each finding and the event it is of.
  using Refine = std::function<void(Finding&, const PlanEvent&)>;
  void explain_plan(const Refine& refine = {});

  // For a rule of no engine: the same of the plans of all chosen engines. A finding that the rule
  // made since `first` of the same tensors (or of the whole adapter) takes the server's words and
  // its name; other events become findings of their own. The runner calls this after check().
  void explain_runs(size_t first);

  // Rule::fix, or another text, with its holes filled in.
  std::string fill(std::string_view fix) const;

 private:
  void explain_event(const PlanEvent& event, const EngineRun& run, size_t first);

  const Rule& rule_;
  const Deployment& deployment_;
  std::optional<size_t> adapter_;
  const EngineRun* run_;
  std::vector<Finding>& findings_;
};

}  // namespace moelora
