#include "lib/check/add_repairs.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <new>
#include <tuple>

#include "lib/adapter/dialect.h"
#include "lib/adapter/foreign/whole_state.h"
#include "lib/check/run_rules.h"
#include "lib/engine/fit/fit.h"

namespace moelora {
namespace {

// An output of lora-convert that was planned, and what rules say of it.
struct Trial {
  Repair repair;
  std::string why_not;  // it is refused; "" for one that was judged
  std::vector<Finding> left;
  std::string remark;  // what else the user must know
};

// An adapter in another trainer's dialect, or within a whole model's state; nullopt for PEFT's.
std::optional<LoadedAdapter> translated_of(const Subject& subject,
                                           const std::optional<BaseModel>& base,
                                           std::optional<DType> dtype) {
  const bool whole = holds_base(subject.tensors);
  if (!whole && subject.dialect == nullptr) return std::nullopt;
  AdapterFiles files;
  files.folder = subject.folder;
  files.tensors = subject.tensors;
  files.set = subject.set;
  if (whole) take_factors_out(files);
  read_config(subject.config, files);
  translate(files, base ? &base->spec : nullptr);
  if (dtype) refuse_codes(files.tensors, *dtype);
  return interpret_adapter(std::move(files), base, "", {});
}

// As convert() would read it.
LoadedAdapter loaded_of(const Subject& subject, const std::optional<BaseModel>& base,
                        std::optional<DType> dtype) {
  if (auto translated = translated_of(subject, base, dtype)) return std::move(*translated);
  if (subject.config_error) throw *subject.config_error;
  if (!subject.loaded) {
    if (subject.adapter_error) throw *subject.adapter_error;
    throw Error(subject.given, "could not be read");
  }
  if (dtype) refuse_codes(subject.tensors, *dtype);
  LoadedAdapter out;
  out.files.config = *subject.parsed_config;
  out.files.folder = subject.folder;
  out.adapter = subject.loaded->adapter;
  out.layout = subject.loaded->layout;
  out.base = base;
  return out;
}

// What lies in the folder that a conversion writes.
Subject output_of(const Conversion& conversion) {
  Subject out;
  out.given = out.folder = "OUT";
  out.has_config = true;
  out.config = conversion.config;
  out.main_file = "adapter_model.safetensors";
  out.own_files = {out.main_file};
  out.listing = {std::string(kConfigName), out.main_file};
  out.files.push_back({out.main_file, conversion.tensors});
  return out;
}

// The server as it was checked, for a conversion.
std::vector<std::string> pairs_of(const ServerOptions& options) {
  std::vector<std::string> out;
  const auto add = [&](std::string_view key, const std::string& value) {
    out.push_back(fmt::format("{}={}", key, value));
  };
  if (options.tp > 1) add("tp-size", std::to_string(options.tp));
  if (options.ep > 1) add("ep-size", std::to_string(options.ep));
  if (options.max_lora_rank) add("max-lora-rank", std::to_string(*options.max_lora_rank));
  for (const auto& [key, value] : options.values) add(key, value);
  return out;
}

int64_t rank_of(const Json& config) {
  const Json* rank = config.find("r");
  return rank != nullptr && rank->is(Json::Kind::integer) ? rank->as_int() : 0;
}

// A command as it may be pasted into a shell, with what must be known of it as a comment.
std::string fix_of(const Trial& trial) {
  std::string remarks = trial.remark;
  if (!trial.repair.drop.empty())
    remarks = fmt::format(
        "leaves out the factors of --drop {} and says how much of the training "
        "that was{}{}",
        fmt::join(trial.repair.drop, ", "), remarks.empty() ? "" : "; ", remarks);
  return trial.repair.command() + (remarks.empty() ? "" : "  # " + remarks);
}

class Repairs {
 public:
  Repairs(const Deployment& deployment, std::vector<Finding>& findings, const JobControl& job)
      : deployment_(deployment), findings_(findings), job_(job) {}

  void run() {
    for (Finding& finding : findings_)
      if (finding.adapter && !finding.unchecked && may_be_repaired(finding)) repair(finding);
  }

 private:
  // ---- which command ----

  // Whatever is wrong with a file in another trainer's dialect may be right once it is in PEFT's,
  // but that it differs from its source.
  bool may_be_repaired(const Finding& finding) const {
    return finding.remedy != Remedy::by_hand ||
           (deployment_.adapters[*finding.adapter].dialect != nullptr &&
            !finding.rule->needs_source && finding.severity != Severity::information);
  }

  const EngineRun* run_of(const Finding& finding) const {
    const auto& runs = deployment_.engines;
    if (finding.engine.empty()) return runs.size() == 1 ? &runs.front() : nullptr;
    const auto at = std::find_if(runs.begin(), runs.end(), [&](const EngineRun& run) {
      return run.choice.label() == finding.engine;
    });
    return at == runs.end() ? nullptr : &*at;
  }

  bool can_fit(const EngineRun* run) const {
    return run != nullptr && run->choice.engine->fit != nullptr && deployment_.base;
  }

  void repair(Finding& finding) {
    job_.check();
    const EngineRun* run = run_of(finding);
    const bool for_engine = can_fit(run);
    if (!for_engine && finding.remedy == Remedy::for_engine) return;
    const Rule& rule = *finding.rule;
    const Subject& subject = deployment_.adapters[*finding.adapter];
    std::string to(finding.remedy_to.empty() ? rule.remedy_to : finding.remedy_to);
    if (for_engine && finding.remedy == Remedy::rewrite) to.clear();
    if (!for_engine && to.empty())
      to = (subject.layout != nullptr ? *subject.layout : layouts::peft_linear).id;
    const Trial& trial =
        try_once(*finding.adapter, for_engine ? run : nullptr, to, rule.remedy_dtype);
    if (trial.why_not.empty() && is_gone(finding, trial) && nothing_new(trial, run)) {
      finding.repair = trial.repair;
      finding.fix = fix_of(trial);
    } else if (for_engine && !trial.why_not.empty() && !is_said(finding, subject) &&
               (rule.engine != nullptr || finding.severity == Severity::error)) {
      if (!finding.fix.empty() && finding.fix.back() != '.') finding.fix += '.';
      finding.fix +=
          fmt::format("{}lora-convert has no repair for {}: {}", finding.fix.empty() ? "" : " ",
                      run->choice.label(), trial.why_not);
    }
  }

  // Whether the fix says already why no conversion helps: what lies there is no adapter of PEFT's,
  // or its factors are spelled as nothing reads them.
  static bool is_said(const Finding& finding, const Subject& subject) {
    return subject.config_error || !subject.instead.empty() ||
           (!finding.names.empty() && dialect_of_name(finding.names.front()) != nullptr);
  }

  // ---- what it would make ----

  using Key = std::tuple<size_t, const EngineRun*, std::string, std::string_view>;

  const Trial& try_once(size_t adapter, const EngineRun* run, const std::string& to,
                        std::string_view dtype) {
    const auto [at, is_new] = trials_.try_emplace(Key{adapter, run, to, dtype});
    if (is_new) {
      at->second.repair = repair_of(deployment_, deployment_.adapters[adapter]);
      at->second.repair.to = to;
      if (dtype == "bf16") at->second.repair.dtype = DType::BF16;
      try_out(at->second, deployment_.adapters[adapter], run);
    }
    return at->second;
  }

  void try_out(Trial& trial, const Subject& subject, const EngineRun* run) {
    try {
      const Conversion made =
          run != nullptr ? fitted(trial, subject, *run) : rewritten(trial, subject);
      if (rank_of(made.config) > rank_of(subject.config) && run != nullptr)
        note_rank(trial, run, rank_of(made.config));
      judge(trial, made, run);
    } catch (const Cancelled&) {
      throw;
    } catch (const MachineError&) {
      throw;
    } catch (const Error& error) {
      const bool by_server = run != nullptr && error.where() == run->choice.label();
      trial.why_not = by_server ? error.text() : error.what();
      if (!error.hint().empty()) trial.why_not += " (" + error.hint() + ")";
    } catch (const std::bad_alloc&) {
      throw;
    } catch (const std::exception& error) {
      trial.why_not = error.what();
    }
  }

  Conversion rewritten(const Trial& trial, const Subject& subject) const {
    PlanOptions plan;
    plan.to = trial.repair.to;
    plan.load = deployment_.load;
    plan.threads = deployment_.threads;
    plan.dtype = trial.repair.dtype;
    return plan_conversion(loaded_of(subject, deployment_.base, plan.dtype), plan);
  }

  // With every --drop that the engine asks for.
  Conversion fitted(Trial& trial, const Subject& subject, const EngineRun& run) const {
    trial.repair.engine = run.choice.label();
    trial.repair.server_options = pairs_of(run.options);
    FitOptions options{run.choice,      run.options, trial.repair.server_options,
                       trial.repair.to, {},          deployment_.threads};
    options.measure = false;
    PlanOptions plan;
    plan.threads = deployment_.threads;
    plan.dtype = trial.repair.dtype;
    for (;;) {
      try {
        FittedConversion made =
            plan_fitted(loaded_of(subject, deployment_.base, plan.dtype), options, plan);
        check_served(made.conversion, "OUT", options, 0);
        for (DropKind kind : options.drop) trial.repair.drop.emplace_back(drop_name(kind));
        return std::move(made.conversion);
      } catch (const DropNeeded& needed) {
        if (!options.drop.insert(needed.kind).second) throw;
      }
    }
  }

  // The repair may need a server that is started for a larger rank.
  static void note_rank(Trial& trial, const EngineRun* run, int64_t rank) {
    const EngineFit& fit = *run->choice.engine->fit;
    const int64_t limit =
        run->options.max_lora_rank.value_or(fit.legal_ranks.empty() ? rank : fit.default_rank);
    if (rank > limit)
      trial.remark = fmt::format("its rank is {}: start the server with --max-lora-rank {}", rank,
                                 fit.legal_ranks.empty() ? rank : max_rank_for(fit, rank));
  }

  void judge(Trial& trial, const Conversion& made, const EngineRun* run) const {
    Deployment out;
    out.base = deployment_.base;
    out.base_headers = deployment_.base_headers;
    out.options = deployment_.options;
    out.threads = deployment_.threads;
    Subject subject = output_of(made);
    SubjectOptions how;
    how.values = false;
    interpret(subject, out.base, how);
    out.adapters.push_back(std::move(subject));
    if (run != nullptr) {
      EngineRun again{run->choice, run->options, std::nullopt, ""};
      if (!trial.remark.empty() && again.options.max_lora_rank.value_or(0) < rank_of(made.config))
        again.options.max_lora_rank = max_rank_for(*run->choice.engine->fit, rank_of(made.config));
      out.engines.push_back(std::move(again));
    }
    plan_engines(out);
    trial.left = run_rules(out).findings;
  }

  // ---- whether it does ----

  static bool is_gone(const Finding& finding, const Trial& trial) {
    return std::none_of(trial.left.begin(), trial.left.end(), [&](const Finding& left) {
      return left.rule == finding.rule && left.severity >= finding.severity;
    });
  }

  // `run`: the server that the output was judged for; without one, rules of none are compared.
  bool nothing_new(const Trial& trial, const EngineRun* run) const {
    return std::all_of(trial.left.begin(), trial.left.end(), [&](const Finding& left) {
      if (left.severity != Severity::error) return true;
      return std::any_of(findings_.begin(), findings_.end(), [&](const Finding& before) {
        return before.rule == left.rule && before.severity == Severity::error &&
               (run == nullptr || before.engine.empty() || before.engine == run->choice.label());
      });
    });
  }

  const Deployment& deployment_;
  std::vector<Finding>& findings_;
  const JobControl& job_;
  std::map<Key, Trial> trials_;
};

}  // namespace

void add_repairs(const Deployment& deployment, std::vector<Finding>& findings,
                 const JobControl& job) {
  Repairs(deployment, findings, job).run();
}

}  // namespace moelora
