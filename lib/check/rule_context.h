#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/check/deployment.h"
#include "lib/check/finding.h"

namespace moelora {

// A fix with {convert}, a lora-convert line up to what is to be made of the adapter, {adapter}, its
// path, and {base}, what --base is told, filled in, as a shell takes them.
struct Holes {
  std::string convert, adapter, base;
};
std::string fill_holes(std::string_view fix, const Holes& holes);

// What a rule sees, and where it reports.
//
// Rules of no engine (FMT, CFG, MOD) run once, whatever servers the user chose, and look at those
// for their severity (lib/check/engine_findings.h): what only some servers refuse ("E (sglang)" in
// the catalogue) is an error for a chosen one, a warning where none was chosen and information
// where only others were; a fault of the files that every chosen server serves whole is a warning.
class RuleContext {
 public:
  RuleContext(const Rule& rule, const Deployment& deployment, std::optional<size_t> adapter,
              const EngineRun* run, std::vector<Finding>& findings)
      : rule_(rule), deployment_(deployment), adapter_(adapter), run_(run), findings_(findings) {}

  const Rule& rule() const { return rule_; }
  const Deployment& deployment() const { return deployment_; }
  // REQUIRES a rule of one adapter.
  size_t adapter() const { return *adapter_; }  // index in the deployment
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
  // ... in the error's words, with its hint as the fix where it has one.
  Finding& report(const Error& error);
  // ... at a tensor or module, all of `names` concerned.
  Finding& report(std::vector<std::string> names, std::string message);
  // ... at a key of adapter_config.json ("rank_pattern"), with its line.
  Finding& report_config(std::string_view key, std::string message);

  // check() of the rule, or explain_plan() for a rule without one; then explain_runs() for a rule
  // of no engine.
  void run_rule();

  // One finding for every event of the plan whose cause is the rule's: its tensors, detail and the
  // server's text. `refine` is called with each finding and the event it is of.
  using Refine = std::function<void(Finding&, const PlanEvent&)>;
  void explain_plan(const Refine& refine = {});

  // Rule::fix, or another text, with its holes filled in.
  std::string fill(std::string_view fix) const;

 private:
  // The events of the plans of all chosen engines. A finding that the rule made since `first` of
  // the same tensors (or of the whole adapter) takes the server's words and its name; other events
  // become findings of their own.
  void explain_runs(size_t first);
  void explain_event(const PlanEvent& event, const EngineRun& run, size_t first);

  const Rule& rule_;
  const Deployment& deployment_;
  std::optional<size_t> adapter_;
  const EngineRun* run_;
  std::vector<Finding>& findings_;
};

}  // namespace moelora
