#include "lib/diff/prediction.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <set>
#include <utility>

#include "lib/adapter/tensor_name.h"
#include "lib/check/rule.h"
#include "lib/check/served_deltas.h"
#include "lib/diff/lora_scoring.h"
#include "lib/diff/served_model.h"
#include "lib/io/input_watch.h"

namespace moelora {
namespace {

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

// What one adapter means, and the scores of whatever a server makes of it.
class Predictor {
 public:
  Predictor(const TokenFile& tokens, const PlannedAdapter& adapter, const PredictOptions& options)
      : tokens_(tokens),
        adapter_(adapter),
        meant_(adapter.meant()),
        options_(options),
        files_(score_lora(tokens, adapter.base(), meant_, options)) {}

  const FileScores& files() const { return files_; }

  void predict(const ServedModel& served, const AdapterPlan& plan, Prediction& out) const {
    out.against_files = against_files(served.lora, served.engine);
    const std::vector<ServedDelta> differences =
        served_differences(meant_.deltas, adapter_.base().spec, served.blocks, options_.threads);
    for (const WrongDeltas& wrong :
         wrong_by_reason(differences, meant_.deltas, adapter_.subject(), plan))
      out.shares.push_back(share_of(wrong, served.lora));
    add_extras(served.lora, plan, out);
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
    Scores server = score_lora(tokens_, adapter_.base(), lora, options_).scores;
    server.path = name;
    return compare_logprobs(files_.scores, std::move(server), compare);
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
    const std::vector<std::string> names = extras_not_held(meant_, served);
    if (names.empty()) return;
    repaired.extras = meant_.extras;
    PredictedShare share;
    share.what = fmt::format("not held: {}{}", names.front(),
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
  static std::vector<std::string> rules_of(const std::vector<std::string>& names,
                                           const AdapterPlan& plan) {
    const std::set<std::string_view> wanted(names.begin(), names.end());
    std::set<std::string> out;
    for (const PlanEvent& event : plan.events)
      for (const std::string& tensor : event.tensors)
        if (wanted.count(without_peft_prefix(tensor)) != 0)
          out.insert(std::string(find_rule(*event.cause)->id));
    return {out.begin(), out.end()};
  }

  const TokenFile& tokens_;
  const PlannedAdapter& adapter_;
  const ModelLora& meant_;
  const PredictOptions& options_;
  FileScores files_;
};

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
  const PlannedAdapter adapter(options, options.engines);
  const Predictor predictor(tokens, adapter, options);
  Predictions out{predictor.files(), {}, reading_notes(tokens, options)};
  const std::vector<std::string>& notes = adapter.subject().loaded->notes;
  out.notes.insert(out.notes.end(), notes.begin(), notes.end());
  for (const EngineRun& run : adapter.servers()) {
    const ServedModel served = served_model(adapter, run);
    Prediction& server = out.servers.emplace_back();
    server.engine = served.engine;
    server.not_served = served.not_served;
    server.notes = served.notes;
    if (served.not_served.empty()) predictor.predict(served, *run.plan_of(0), server);
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
