#include "lib/diff/prediction.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>
#include <utility>

#include "lib/adapter/tensor_name.h"
#include "lib/check/rule.h"
#include "lib/check/served_deltas.h"
#include "lib/check/validate.h"
#include "lib/compare/served_pairs.h"
#include "lib/diff/lora_scoring.h"
#include "lib/io/input_watch.h"

namespace moelora {
namespace {

ValidateRequest request_of(const PredictOptions& options) {
  ValidateRequest out;
  out.adapters = {options.adapter};
  for (const std::string& engine : options.engines) out.engines.push_back(parse_engine(engine));
  for (const std::string& pair : options.server_pairs)
    set_server_option(out.options, pair, out.engines);
  out.subject.load = options;
  out.subject.threads = options.threads;
  out.job = options.job;
  return out;
}

std::string_view words_of(WrongDeltas::Kind kind) {
  switch (kind) {
    case WrongDeltas::Kind::off:
      return "computed otherwise";
    case WrongDeltas::Kind::lost:
      return "lost";
    case WrongDeltas::Kind::untrained:
      return "added, though nobody trained it";
    case WrongDeltas::Kind::not_finite:
      return "not finite";
  }
  return "";
}

std::string what_of(const WrongDeltas& wrong) {
  std::string out = fmt::format("{}: {}", words_of(wrong.kind), places_text(wrong.keys));
  if (!wrong.defect.empty()) out += fmt::format(" ({})", wrong.defect);
  return out;
}

// Why a server computes nothing of an adapter; "" where it does.
std::string not_served(const EngineRun& run, size_t adapter) {
  const AdapterPlan* plan = run.plan_of(adapter);
  if (plan == nullptr)
    return run.not_planned.empty() ? "what it does with an adapter is not known" : run.not_planned;
  if (const PlanEvent* refusal = plan->first_refusal())
    return "refused: " + refusal_text(*refusal->refusal);
  if (!is_served(run, adapter)) return "the server does not start with these options";
  if (!has_known_kernels(*run.choice.engine))
    return "what its kernels make of an adapter is not known";
  return "";
}

// Extras that a forward computes with and no server's buffers hold.
bool counts(const Extra& extra) {
  return extra.kind == ExtraKind::saved_module || extra.kind == ExtraKind::lora_bias ||
         extra.kind == ExtraKind::magnitude || extra.kind == ExtraKind::base_weight;
}

// What one adapter means, and the scores of whatever a server makes of it.
class Predictor {
 public:
  Predictor(const TokenFile& tokens, const Subject& subject, const BaseModel& base,
            const PredictOptions& options)
      : tokens_(tokens),
        subject_(subject),
        base_(base),
        options_(options),
        meant_(lora_of(subject.loaded->adapter, base.spec)),
        files_(score_lora(tokens, base, meant_, options)) {}

  const FileScores& files() const { return files_; }

  void predict(const EngineRun& run, const AdapterPlan& plan, Prediction& out) const {
    const std::vector<ServedBlock> blocks = served_blocks(subject_, base_, run);
    const ModelLora served{served_pairs(blocks, base_.spec), used_extras(plan)};
    out.against_files = against_files(served, run.choice.label());
    const std::vector<ServedDelta> differences =
        served_differences(meant_.deltas, base_.spec, blocks, options_.threads);
    for (const WrongDeltas& wrong : wrong_by_reason(differences, meant_.deltas, subject_, plan))
      out.shares.push_back(share_of(wrong, served));
    add_extras(served, plan, out);
    std::stable_sort(out.shares.begin(), out.shares.end(),
                     [](const PredictedShare& a, const PredictedShare& b) {
                       return a.without.k3 < b.without.k3;
                     });
  }

 private:
  Comparison against_files(const ModelLora& lora, const std::string& name) const {
    CompareLogprobsOptions compare;
    compare.most = options_.most;
    compare.job = options_.job;
    Scores server = score_lora(tokens_, base_, lora, options_).scores;
    server.path = name;
    return compare_logprobs(files_.scores, std::move(server), compare);
  }

  // What is beside the deltas and is not lost: PEFT takes DoRA's magnitudes and saved modules.
  std::map<std::string, Extra> used_extras(const AdapterPlan& plan) const {
    std::map<std::string, Extra> out;
    for (const TensorFate& fate : plan.fates) {
      const auto extra = meant_.extras.find(std::string(without_peft_prefix(fate.tensor)));
      if (fate.fate == Fate::used && extra != meant_.extras.end()) out.insert(*extra);
    }
    return out;
  }

  PredictedShare share_of(const WrongDeltas& wrong, const ModelLora& served) const {
    ModelLora repaired = served;
    for (const DeltaKey& key : wrong.keys) {
      const auto meant = meant_.deltas.find(key);
      if (meant == meant_.deltas.end())
        repaired.deltas.erase(key);
      else
        repaired.deltas[key] = meant->second;
    }
    PredictedShare out;
    for (const Rule* rule : wrong.rules) out.rules.emplace_back(rule->id);
    out.what = what_of(wrong);
    out.deltas = static_cast<int64_t>(wrong.keys.size());
    out.without = against_files(repaired, "").metrics;
    return out;
  }

  // Extras that the server does not compute with, and that change something.
  void add_extras(const ModelLora& served, const AdapterPlan& plan, Prediction& out) const {
    ModelLora repaired = served;
    std::set<std::string> names;
    for (const auto& [name, extra] : meant_.extras)
      if (counts(extra) && served.extras.count(name) == 0) names.insert(name);
    if (names.empty()) return;
    repaired.extras = meant_.extras;
    PredictedShare share;
    share.what = fmt::format("not held: {}{}", *names.begin(),
                             names.size() > 1 ? fmt::format(" and {} more", names.size() - 1) : "");
    share.deltas = static_cast<int64_t>(names.size());
    share.rules = rules_of(names, plan);
    try {
      share.without = against_files(repaired, "").metrics;
    } catch (const MachineError&) {
      throw;
    } catch (const Error& error) {  // a magnitude of a module whose pair the server lost
      out.notes.push_back(fmt::format("{}: cannot be told apart ({})", share.what, error.what()));
      return;
    }
    if (share.without.k3 != out.against_files->metrics.k3) out.shares.push_back(std::move(share));
  }

  // Of the events of the plan that name one of these tensors.
  static std::vector<std::string> rules_of(const std::set<std::string>& names,
                                           const AdapterPlan& plan) {
    std::set<std::string> out;
    for (const PlanEvent& event : plan.events)
      for (const std::string& tensor : event.tensors)
        if (names.count(std::string(without_peft_prefix(tensor))) != 0)
          out.insert(std::string(find_rule(*event.cause)->id));
    return {out.begin(), out.end()};
  }

  const TokenFile& tokens_;
  const Subject& subject_;
  const BaseModel& base_;
  const PredictOptions& options_;
  ModelLora meant_;
  FileScores files_;
};

const Subject& only_subject(const Deployment& deployment) {
  const Subject& subject = deployment.adapters.front();
  if (!subject.loaded)
    throw subject.adapter_error ? *subject.adapter_error
                                : Error(subject.given, "could not be read as an adapter");
  if (!deployment.base)
    throw deployment.base_error ? *deployment.base_error
                                : Error(subject.given, "has no base model to be computed with");
  return subject;
}

void check(const PredictOptions& options) {
  if (options.adapter.empty()) throw Error("adapter", "is missing: there is nothing to predict of");
  if (options.engines.empty())
    throw Error("engines", "are missing: which server is to be predicted?",
                {"name one, as in ", Option::engine, " sglang@0.5.23"});
}

}  // namespace

bool Predictions::passes() const {
  return std::all_of(servers.begin(), servers.end(), [](const Prediction& server) {
    return server.against_files && server.against_files->verdict != Verdict::different;
  });
}

Predictions predict(const TokenFile& tokens, const PredictOptions& options) {
  check(options);
  InputWatch watch;
  const ValidationReport report = validate(request_of(options));
  const Deployment& deployment = report.deployments.front();
  const Subject& subject = only_subject(deployment);
  const Predictor predictor(tokens, subject, *deployment.base, options);
  Predictions out{predictor.files(), {}, reading_notes(tokens, options)};
  out.notes.insert(out.notes.end(), subject.loaded->notes.begin(), subject.loaded->notes.end());
  for (const EngineRun& run : deployment.engines) {
    Prediction& server = out.servers.emplace_back();
    server.engine = run.choice.label();
    server.not_served = not_served(run, 0);
    if (server.not_served.empty()) predictor.predict(run, *run.plan_of(0), server);
  }
  watch.check();
  return out;
}

Predictions predict(const std::string& path, const PredictOptions& options) {
  check(options);
  InputWatch watch;
  Predictions out = predict(read_tokens(path), options);
  watch.check();
  return out;
}

}  // namespace moelora
