#include "lib/check/run_rules.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <new>
#include <set>
#include <tuple>

#include "lib/check/engine_findings.h"
#include "lib/check/rule_context.h"
#include "lib/io/file.h"

namespace moelora {
namespace {

bool in_versions(const Rule& rule, const EngineChoice& choice) {
  const auto has = [&](std::string_view version) {
    return choice.version.has(choice.engine->release(version));
  };
  return (rule.since.empty() || has(rule.since)) && (rule.until.empty() || !has(rule.until));
}

class Runner {
 public:
  Runner(const Deployment& deployment, const JobControl& job)
      : deployment_(deployment), job_(job) {}

  RuleResults run() {
    for (const Rule* rule : all_rules()) {
      job_.check();
      run_rule(*rule);
    }
    note_unplanned();
    soften_later();
    list_skipped();
    sort_findings();
    list_served();
    gather_notes();
    return std::move(out_);
  }

 private:
  // The config of another trainer is read where what it says is compared with a source.
  static bool has_no_numbers(const Rule& rule, const Subject& subject) {
    const bool translates = subject.translated != nullptr || subject.untranslated;
    return is_unreadable(subject) || (subject.config_error && !(rule.needs_source && translates));
  }

  void run_rule(const Rule& rule) {
    if (rule.engine == nullptr) return run_for(rule, nullptr);
    for (const EngineRun& run : deployment_.engines)
      if (run.choice.engine == rule.engine && in_versions(rule, run.choice)) run_for(rule, &run);
  }

  void run_for(const Rule& rule, const EngineRun* run) {
    if (rule.numeric && !deployment_.numeric) return;
    if (rule.requires_base() && !deployment_.base)
      return skip(rule, deployment_.base_error ? "the base model is not known"
                                               : "no base model was given (--base)");
    if (rule.needs_source && !deployment_.source)
      return skip(rule, "no source adapter was given (--source)");
    if (rule.whole_deployment) return check(rule, std::nullopt, run);
    for (size_t i = 0; i < deployment_.adapters.size(); ++i) {
      const Subject& subject = deployment_.adapters[i];
      if (rule.numeric && has_no_numbers(rule, subject))
        skip(rule, subject.given + " could not be read");
      else if (rule.needs_values && subject.values.empty() && !subject.tensors.empty())
        skip(rule, "values were not looked at (--no-values)");
      else
        check(rule, i, run);
    }
  }

  void check(const Rule& rule, std::optional<size_t> adapter, const EngineRun* run) {
    ++out_.rules_run;
    const size_t before = out_.findings.size();
    RuleContext context(rule, deployment_, adapter, run, out_.findings);
    try {
      context.run_rule();
    } catch (const MachineError&) {
      throw;
    } catch (const std::bad_alloc&) {
      throw;  // nothing is known, of this rule or any other
    } catch (const std::exception& error) {
      out_.findings.resize(before);
      Finding& finding =
          context.report(fmt::format("this rule could not be checked: {}", error.what()));
      finding.severity = Severity::warning;
      finding.fix.clear();
      finding.unchecked = true;
    }
  }

  void skip(const Rule& rule, const std::string& why) { skipped_[why].insert(rule.id); }

  // What a server does is known up to a release: of a later one it is no more than likely.
  void soften_later() {
    for (const EngineRun& run : deployment_.engines) {
      if (!is_later(run.choice)) continue;
      for (Finding& f : out_.findings) {
        const bool of_server = f.rule->engine != nullptr || f.rule->cause != nullptr;
        if (f.severity != Severity::error || f.engine != run.choice.label() ||
            !(of_server || f.rule->numeric))
          continue;
        f.severity = Severity::warning;
        f.message += fmt::format(" (so in {} {}, the newest that is known)", run.choice.engine->id,
                                 run.choice.engine->releases.back().version);
      }
    }
  }

  // What NUM003 does not report.
  void note_unplanned() {
    for (const EngineRun& run : deployment_.engines)
      if (run.unreadable)
        out_.skipped.push_back(
            {"what " + run.choice.label() + " would do with the adapter", run.not_planned});
  }

  // A long list by the rules' families: "43 rules (CFG, FMT, VLM)".
  static std::string listed(const std::set<std::string_view>& ids) {
    constexpr size_t kMost = 12;
    if (ids.size() <= kMost) return fmt::format("{}", fmt::join(ids, ", "));
    std::set<std::string_view> families;
    for (std::string_view id : ids) families.insert(id.substr(0, id.find_first_of("0123456789")));
    return fmt::format("{} rules ({})", ids.size(), fmt::join(families, ", "));
  }

  void list_skipped() {
    for (const auto& [why, ids] : skipped_) out_.skipped.push_back({listed(ids), why});
  }

  // Findings of the deployment come last; the order of a rule's own findings stays.
  void sort_findings() {
    const auto key = [](const Finding& f) {
      return std::make_tuple(f.adapter.value_or(SIZE_MAX), -static_cast<int>(f.severity),
                             f.rule->id, std::string_view(f.engine));
    };
    std::stable_sort(out_.findings.begin(), out_.findings.end(),
                     [&](const Finding& a, const Finding& b) { return key(a) < key(b); });
  }

  void list_served() {
    for (size_t i = 0; i < deployment_.adapters.size(); ++i)
      for (const EngineRun& run : deployment_.engines)
        if (is_whole(run, i)) out_.served.push_back({0, i, run.choice.label(), served_text(run)});
  }

  // The plan puts every tensor where it belongs, and no rule found anything that matters. What
  // events are worth is told by values, so without them there may be no event.
  bool is_whole(const EngineRun& run, size_t adapter) const {
    const AdapterPlan* plan = run.plan_of(adapter);
    const auto refuses = [](const PlanEvent& event) { return event.refusal.has_value(); };
    if (plan == nullptr || !run.plan->not_known.empty() || plan->first_refusal() != nullptr ||
        std::any_of(run.plan->server.begin(), run.plan->server.end(), refuses) ||
        !notes_of_unknown_values(run.options, *run.choice.engine).empty())
      return false;
    if (deployment_.adapters[adapter].values.empty() && !plan->events.empty()) return false;
    return std::all_of(plan->fates.begin(), plan->fates.end(),
                       [](const TensorFate& fate) { return fate.fate == Fate::used; }) &&
           std::none_of(out_.findings.begin(), out_.findings.end(), [&](const Finding& f) {
             return f.severity != Severity::information && f.adapter.value_or(adapter) == adapter &&
                    (f.engine.empty() || f.engine == run.choice.label());
           });
  }

  static std::string served_text(const EngineRun& run) {
    const std::string server =
        fmt::format("{} {}", run.choice.engine->id, run.choice.version.text());
    const std::string& launch = run.plan->launch;
    return launch.empty() ? server + " loads it whole" : server + " serves it whole: " + launch;
  }

  void gather_notes() {
    if (deployment_.base && !deployment_.base->derived.empty())
      out_.notes.push_back(deployment_.base->derived);
    for (const Subject& subject : deployment_.adapters)
      for (const std::string& note : subject.notes)
        out_.notes.push_back(
            deployment_.adapters.size() == 1 ? note : fmt::format("{}: {}", subject.given, note));
    for (const EngineRun& run : deployment_.engines)
      if (run.choice.version.is_development())
        out_.notes.push_back(fmt::format(
            "{} is a build between releases: taken as the release before it; name the day it is "
            "of ({}@2026-05-19) to have what came since",
            run.choice.label(), run.choice.engine->id));
    for (const EngineRun& run : deployment_.engines)
      if (run.plan)
        for (const std::string& note : run.plan->notes)
          out_.notes.push_back(fmt::format("{}: {}", run.choice.label(), note));
  }

  const Deployment& deployment_;
  const JobControl& job_;
  RuleResults out_;
  std::map<std::string, std::set<std::string_view>> skipped_;  // by reason
};

}  // namespace

RuleResults run_rules(const Deployment& deployment, const JobControl& job) {
  return Runner(deployment, job).run();
}

}  // namespace moelora
