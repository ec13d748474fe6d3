#include "lib/check/many/judge_alone.h"

#include <fmt/core.h>

#include <algorithm>
#include <map>
#include <mutex>
#include <optional>

#include "lib/base/parallel.h"
#include "lib/base/progress_meter.h"
#include "lib/check/judge.h"
#include "lib/check/many/clean_cache.h"
#include "lib/check/name_groups.h"
#include "lib/engine/cause.h"
#include "lib/io/input_watch.h"

namespace moelora {
namespace {

// What is said of adapters: each text once, in the order in which it came up.
class Said {
 public:
  void add(const std::string& text, const std::string& adapter) {
    const bool names_it = text.starts_with(adapter + " ");  // "a could not be read"
    const std::string rest = names_it ? text.substr(adapter.size()) : ": " + text;
    const auto [at, is_new] = index_.try_emplace(rest, all_.size());
    if (is_new) all_.push_back({rest, adapter, 0});
    ++all_[at->second].adapters;
  }

  // "TEXT" of what holds for all `of` them; else "a: TEXT", "a and 65 more: TEXT".
  std::vector<std::string> lines(size_t of) const {
    std::vector<std::string> out;
    for (const Entry& each : all_)
      if (each.adapters == of && each.rest.starts_with(": "))
        out.push_back(each.rest.substr(2));
      else
        out.push_back(whose(each) + each.rest);
    return out;
  }

 private:
  struct Entry {
    std::string rest, first;  // what follows the adapter
    size_t adapters;
  };

  static std::string whose(const Entry& entry) {
    return entry.adapters == 1 ? entry.first
                               : fmt::format("{} and {} more", entry.first, entry.adapters - 1);
  }

  std::vector<Entry> all_;
  std::map<std::string, size_t> index_;
};

// What was judged keeps what reports print of it, and lets go of names, factors and plans.
void let_go(Deployment& deployment) {
  Deployment slim;
  const auto slim_base = [](const BaseModel& base) {
    BaseModel out;
    out.origin = base.origin;
    return out;
  };
  if (deployment.base) slim.base = slim_base(*deployment.base);
  for (EngineRun& run : deployment.engines) {
    EngineRun& kept = slim.engines.emplace_back();
    kept.choice = run.choice;
    kept.not_planned = std::move(run.not_planned);
    kept.unreadable = run.unreadable;
    if (!run.plan) continue;
    kept.plan.emplace();
    kept.plan->memory = std::move(run.plan->memory);
    kept.plan->not_known = std::move(run.plan->not_known);
  }
  for (Subject& adapter : deployment.adapters) {
    Subject& kept = slim.adapters.emplace_back();
    kept.given = std::move(adapter.given);
    kept.folder = std::move(adapter.folder);
    kept.main_file = std::move(adapter.main_file);
    kept.layout = adapter.layout;
    kept.forward = std::move(adapter.forward);
    if (adapter.base) kept.base = slim_base(*adapter.base);
    // Of a folder that was read: what a reviewer can be shown.
    for (const std::string& name : adapter.listing)
      if (name == kConfigName || kept.listing.empty()) kept.listing = {name};
  }
  deployment = std::move(slim);
}

struct One {
  Judged judged;
  JudgedAlone facts;
};

// An adapter that the machine does not let us judge.
One unjudged(const ValidateRequest& request, const std::string& path, const Error& error) {
  One out;
  Subject& adapter = out.judged.deployment.adapters.emplace_back();
  adapter.given = adapter.folder = path;
  for (const EngineChoice& choice : request.engines) {
    EngineRun& run = out.judged.deployment.engines.emplace_back();
    run.choice = choice;
    run.not_planned = error.what();
    run.unreadable = true;
  }
  Finding& finding = out.judged.results.findings.emplace_back();
  finding.rule = find_rule(cause::unreadable_adapter);
  finding.adapter = 0;
  finding.where = error.where();
  finding.message = error.text();
  finding.fix = error.hint();
  finding.unjudged = true;
  return out;
}

// Nothing was found, and nothing was waived.
bool is_clean(const Judged& judged) {
  const auto& findings = judged.results.findings;
  return judged.waived.empty() &&
         std::all_of(findings.begin(), findings.end(), [](const Finding& finding) {
           return finding.severity == Severity::information && !finding.unchecked &&
                  !finding.unjudged;
         });
}

// The base of an adapter, as it was opened for all.
struct SharedBase {
  OpenedBase* opened;
  std::string digest;  // for the cache; "" without one
};

class Alone {
 public:
  Alone(const ValidateRequest& request, OpenedBases& bases, size_t adapters)
      : request_(request), bases_(bases), adapters_(adapters) {
    if (!request.cache.empty()) cache_.emplace(request.cache, request);
    if (!request.subject.load.base.empty()) read_headers(bases_.given());
  }

  // Adapters one by one, several at a time. What only one thread may do is behind mutex_.
  void judge_all(const std::vector<std::string>& paths) {
    ProgressMeter meter(kAdapterStage, paths.size(), request_.job);
    std::vector<One> all(paths.size());
    const int threads =
        request_.subject.threads > 0 ? request_.subject.threads : available_threads();
    if (paths.size() > 1 && threads > 1) request_.subject.threads = 1;  // of each
    request_.job.progress = {};
    parallel_for(std::ssize(paths), threads, [&](int64_t i, int) {
      const auto at = static_cast<size_t>(i);
      all[at] = judge_one(paths[at]);
      let_go(all[at].judged.deployment);
      meter.add(1);
    });
    for (One& one : all) take(std::move(one));
  }

  void take(One one) {
    Judged& judged = one.judged;
    const size_t index = out_.deployments.size();
    const std::string& path = judged.deployment.adapters.front().given;
    const auto own = [&](Finding& finding) {
      finding.deployment = index;
      finding.adapter = 0;
    };
    for (Finding& finding : judged.results.findings) {
      own(finding);
      out_.results.findings.push_back(std::move(finding));
    }
    for (Waived& waived : judged.waived) {
      own(waived.finding);
      out_.waived.push_back(std::move(waived));
    }
    for (Served& served : judged.results.served) {
      served.deployment = index;
      out_.results.served.push_back(std::move(served));
    }
    for (const std::string& note : judged.results.notes) notes_.add(note, path);
    for (const Skipped& skipped : judged.results.skipped) skip(skipped, path);
    out_.results.rules_run += judged.results.rules_run;
    unchanged_ += one.facts.unchanged ? 1 : 0;
    out_.deployments.push_back(std::move(judged.deployment));
    out_.alone.push_back(one.facts);
  }

  ValidationReport done() {
    if (!base_failed_) base_watch_.check();
    out_.results.notes = notes_.lines(adapters_);
    for (const auto& [what, why] : skipped_)
      for (std::string& line : why.lines(adapters_))
        out_.results.skipped.push_back({what, std::move(line)});
    if (unkept_ > 0)
      out_.results.notes.push_back(
          fmt::format("{} not kept in the cache: {}", pluralized(unkept_, "verdict"), unkept_why_));
    if (unchanged_ > 0)
      out_.results.skipped.push_back(
          {fmt::format("{} again, in values and in what is information only",
                       pluralized(unchanged_, "adapter")),
           fmt::format("config and headers are what they were when nothing was found ({})",
                       request_.cache)});
    if (adapters_ > 1)
      out_.results.skipped.push_back(
          {"what adapters do to one another on one server",
           "each was judged alone: name the adapters of one server, and leave out --recursive and "
           "--cache"});
    return std::move(out_);
  }

 private:
  static void read_headers(OpenedBase& base) {
    std::string note;
    if (base.model) base.headers(note);
  }

  // Its files are watched to the end: all adapters are held against them.
  SharedBase base_of(const Subject& adapter) {
    const std::lock_guard lock(mutex_);
    const InputWatch::Here here(base_watch_);
    try {
      OpenedBase& base = bases_.of(adapter);
      read_headers(base);
      return {&base, cache_ ? cache_->digest_of(base) : ""};
    } catch (const MachineError&) {
      base_failed_ = true;
      throw;
    }
  }

  One judge_one(const std::string& path) {
    try {
      const InputWatch watch;
      return judged(path, watch);
    } catch (const MachineError& error) {
      return unjudged(request_, path, error);
    }
  }

  One judged(const std::string& path, const InputWatch& watch) {
    Subject adapter = open_subject(path, request_.subject.load.input());
    const SharedBase shared = base_of(adapter);
    OpenedBase& base = *shared.opened;
    const std::string key = cache_ ? cache_->key_of(adapter, shared.digest) : "";
    if (!key.empty())
      if (const auto verdict = cache_->find(path, key)) return of_verdict(*verdict, adapter, base);
    One out;
    Deployment deployment;
    base.give_to(deployment);
    deployment.adapters.push_back(std::move(adapter));
    out.judged = judge(request_, std::move(deployment), base);
    out.facts.tensors = static_cast<int64_t>(out.judged.deployment.adapters.front().tensors.size());
    try {
      watch.check();
    } catch (const Error& error) {  // another process writes it meanwhile
      return unjudged(request_, path, error);
    }
    if (!key.empty() && is_clean(out.judged)) keep(path, key, verdict_of(out));
    return out;
  }

  // A cache that is full, or may only be read, makes the next run slower and this one no less true.
  void keep(const std::string& path, const std::string& key, const CleanVerdict& verdict) {
    const InputWatch own;
    try {
      cache_->store(path, key, verdict);
    } catch (const Error& error) {
      const std::lock_guard lock(mutex_);
      if (unkept_++ == 0 || error.what() < unkept_why_) unkept_why_ = error.what();
    }
  }

  static CleanVerdict verdict_of(const One& one) {
    const RuleResults& results = one.judged.results;
    const Layout* layout = one.judged.deployment.adapters.front().layout;
    return {layout != nullptr ? std::string(layout->id) : "",
            one.facts.tensors,
            results.rules_run,
            results.served,
            results.notes,
            results.skipped};
  }

  One of_verdict(const CleanVerdict& verdict, const Subject& adapter,
                 const OpenedBase& base) const {
    One out;
    Deployment& deployment = out.judged.deployment;
    base.give_to(deployment);
    Subject& kept = deployment.adapters.emplace_back();
    kept.given = adapter.given;
    kept.folder = adapter.folder;
    kept.listing = adapter.listing;
    kept.main_file = adapter.main_file;
    kept.base = deployment.base;
    for (const Layout* layout : all_layouts())
      if (layout->id == verdict.layout) kept.layout = layout;
    for (const EngineChoice& choice : request_.engines) {
      EngineRun& run = deployment.engines.emplace_back();
      run.choice = choice;
      run.plan.emplace();
    }
    out.judged.results.served = verdict.served;
    out.judged.results.notes = verdict.notes;
    out.judged.results.skipped = verdict.skipped;
    out.judged.results.rules_run = verdict.rules_run;
    out.facts = {verdict.tensors, true};
    return out;
  }

  void skip(const Skipped& skipped, const std::string& path) {
    const auto is_of = [&](const auto& entry) { return entry.first == skipped.what; };
    auto at = std::find_if(skipped_.begin(), skipped_.end(), is_of);
    if (at == skipped_.end()) at = skipped_.insert(at, {skipped.what, {}});
    at->second.add(skipped.why, path);
  }

  ValidateRequest request_;
  OpenedBases& bases_;
  size_t adapters_;
  std::mutex mutex_;
  std::optional<CleanCache> cache_;
  InputWatch base_watch_;
  bool base_failed_ = false;
  int64_t unchanged_ = 0, unkept_ = 0;
  std::string unkept_why_;  // of one, the same in every run
  Said notes_;
  std::vector<std::pair<std::string, Said>> skipped_;  // by what, in order
  ValidationReport out_;
};

}  // namespace

ValidationReport judge_alone(const ValidateRequest& request, const FoundAdapters& found,
                             OpenedBases& bases) {
  Alone alone(request, bases, found.paths.size() + found.unlisted.size());
  alone.judge_all(found.paths);
  for (const auto& [path, error] : found.unlisted) alone.take(unjudged(request, path, error));
  return alone.done();
}

}  // namespace moelora
