#include "lib/check/rule_context.h"

#include <algorithm>

#include "lib/adapter/dialect.h"
#include "lib/engine/cause.h"
#include "lib/model/base_model.h"

namespace moelora {
namespace {

// Line and column of a member of a config that was read from a file; markers may lie in
// auto_mapping.
void place(Finding& finding, const Json& config, std::string_view key) {
  const Json* value = config.find(key);
  if (const Json* mapping = config.find("auto_mapping");
      value == nullptr && mapping != nullptr && mapping->is(Json::Kind::object))
    value = mapping->find(key);
  const Json& at = value != nullptr ? *value : config;
  finding.line = at.line();
  finding.column = at.column();
}

// Both of the whole adapter, or with a name in common. `a` and `b` are sorted.
bool share_a_name(const std::vector<std::string>& a, const std::vector<std::string>& b) {
  if (a.empty() || b.empty()) return a.empty() && b.empty();
  for (auto i = a.begin(), j = b.begin(); i != a.end() && j != b.end();) {
    if (*i == *j) return true;
    *i < *j ? ++i : ++j;
  }
  return false;
}

// Factors in a foreign spelling are no saved modules, to be merged or left out: they are the
// training, and what is said of them is what helps.
std::string_view advice_on(const std::vector<std::string>& names) {
  const Dialect* dialect = names.empty() ? nullptr : dialect_of_name(names.front());
  if (dialect == nullptr) return {};
  return dialect->read == nullptr ? dialect->advice
                                  : std::string_view("{convert} --to peft-linear");
}

}  // namespace

const AdapterPlan* RuleContext::plan() const {
  return run_ != nullptr && adapter_ ? run_->plan_of(*adapter_) : nullptr;
}

const ModelSpec* RuleContext::spec() const {
  return deployment_.base ? &deployment_.base->spec : nullptr;
}

Finding& RuleContext::report(std::string message) {
  Finding& finding = findings_.emplace_back();
  finding.rule = &rule_;
  finding.severity = rule_.severity;
  if (run_ != nullptr) finding.engine = run_->choice.label();
  finding.adapter = adapter_;
  finding.message = std::move(message);
  const bool other = rule_.engine != nullptr && adapter_ && !subject().instead.empty();
  finding.fix = other ? subject().instead : fill(rule_.fix);
  if (!other) finding.remedy = rule_.remedy;
  return finding;
}

Finding& RuleContext::report(const Error& error) {
  Finding& finding = report(error.text());
  if (error.hint().empty()) return finding;
  finding.fix = error.hint();
  finding.remedy = Remedy::by_hand;
  return finding;
}

Finding& RuleContext::report(std::vector<std::string> names, std::string message) {
  Finding& finding = report(std::move(message));
  finding.names = std::move(names);
  std::sort(finding.names.begin(), finding.names.end());
  if (const std::string_view advice = advice_on(finding.names); !advice.empty())
    finding.fix = fill(advice);
  if (!finding.names.empty()) finding.where = finding.names.front();
  if (adapter_) finding.file = subject().main_file;
  return finding;
}

Finding& RuleContext::report_config(std::string_view key, std::string message) {
  Finding& finding = report(std::move(message));
  finding.file = "adapter_config.json";
  finding.where = key;
  if (adapter_) place(finding, subject().config, key);
  return finding;
}

void RuleContext::run_rule() {
  const size_t first = findings_.size();
  if (rule_.check != nullptr)
    rule_.check(*this);
  else
    explain_plan();
  if (rule_.engine == nullptr) explain_runs(first);
}

void RuleContext::explain_plan(const Refine& refine) {
  if (run_ == nullptr || !run_->plan) return;
  const AdapterPlan* mine = plan();
  const std::vector<PlanEvent>& events = mine != nullptr ? mine->events : run_->plan->server;
  for (const PlanEvent& event : events) {
    if (event.cause != rule_.cause) continue;
    const bool at_key = event.tensors.empty() && !rule_.config_key.empty();
    Finding& finding = at_key ? report_config(rule_.config_key, event.detail)
                              : report(event.tensors, event.detail);
    if (event.refusal) finding.server_text = refusal_text(*event.refusal);
    if (refine) refine(finding, event);
  }
}

void RuleContext::explain_event(const PlanEvent& event, const EngineRun& run, size_t first) {
  const auto is_same = [&](const Finding& finding) {
    return finding.server_text.empty() && finding.adapter == adapter_ &&
           (finding.engine.empty() || finding.engine == run.choice.label()) &&
           share_a_name(finding.names, event.tensors);
  };
  const auto begin = findings_.begin() + static_cast<std::ptrdiff_t>(first);
  const auto same = std::find_if(begin, findings_.end(), is_same);
  Finding& finding = same != findings_.end() ? *same : report(event.tensors, event.detail);
  finding.engine = run.choice.label();
  if (!event.refusal) return;
  finding.severity = Severity::error;
  finding.server_text = refusal_text(*event.refusal);
}

void RuleContext::explain_runs(size_t first) {
  for (const EngineRun& run : deployment_.engines) {
    const AdapterPlan* mine = adapter_ ? run.plan_of(*adapter_) : nullptr;
    if (!run.plan || (adapter_ && mine == nullptr)) continue;
    for (const PlanEvent& event : mine != nullptr ? mine->events : run.plan->server)
      if (event.cause == rule_.cause) explain_event(event, run, first);
  }
}

std::string RuleContext::fill(std::string_view fix) const {
  const std::string& given = deployment_.load.base;
  const std::string base = given.empty() ? "BASE" : shell_word(given);
  if (!adapter_) return fill_holes(fix, {"lora-convert adapter ADAPTER OUT", "ADAPTER", base});
  return fill_holes(
      fix, {repair_of(deployment_, subject()).command(), shell_word(subject().given), base});
}

std::string fill_holes(std::string_view fix, const Holes& holes) {
  std::string out(fix);
  for (const auto& [hole, text] : {std::pair{std::string_view("{convert}"), &holes.convert},
                                   {std::string_view("{adapter}"), &holes.adapter},
                                   {std::string_view("{base}"), &holes.base}})
    for (size_t at = out.find(hole); at != std::string::npos;
         at = out.find(hole, at + text->size()))
      out.replace(at, hole.size(), *text);
  return out;
}

}  // namespace moelora
