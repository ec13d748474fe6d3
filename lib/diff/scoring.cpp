#include "lib/diff/scoring.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "lib/adapter/adapter_file.h"
#include "lib/base/utf8.h"
#include "lib/compare/served_difference.h"
#include "lib/diff/lora_scoring.h"
#include "lib/diff/score_file.h"
#include "lib/diff/served_model.h"
#include "lib/io/input_watch.h"
#include "lib/io/report_file.h"
#include "lib/model/base_model.h"

namespace moelora {
namespace {

// The adapter as it is read with the base, or the base alone.
struct Model {
  std::optional<LoadedAdapter> adapted;
  std::optional<BaseModel> alone;

  const BaseModel& base() const { return adapted ? *adapted->base : *alone; }
  const Adapter* adapter() const { return adapted ? &adapted->adapter : nullptr; }
};

Model open_model(const ScoreFilesOptions& options) {
  Model out;
  if (options.adapter.empty())
    out.alone = open_base(options.base, options.model_specs, options.links);
  else
    out.adapted = load_adapter(options.adapter, options);
  return out;
}

// What the adapter's server computes otherwise than its files mean, for people; "" for nothing.
std::string served_note(const PlannedAdapter& adapter, const ServedModel& served, int threads) {
  const std::vector<ServedDelta> deltas =
      served_differences(adapter.meant().deltas, adapter.base().spec, served.blocks, threads);
  const auto wrong = std::count_if(deltas.begin(), deltas.end(),
                                   [](const ServedDelta& delta) { return delta.is_wrong(); });
  const size_t lost = extras_not_held(adapter.meant(), served.lora).size();
  std::vector<std::string> what;
  if (wrong > 0)
    what.push_back(
        fmt::format("computes {} of the adapter's {} deltas otherwise than its files mean", wrong,
                    deltas.size()));
  if (lost > 0)
    what.push_back(
        fmt::format("computes without {} tensor{} beside the deltas", lost, lost == 1 ? "" : "s"));
  if (what.empty()) return "";
  return fmt::format("{} {} (lora-diff predict says why)", served.engine, fmt::join(what, " and "));
}

// With what a server is expected to compute of the adapter.
FileScores score_served(const TokenFile& tokens, const ScoreFilesOptions& options) {
  if (options.adapter.empty())
    throw Error("adapter", "is missing: a server computes a base alone as its files mean it");
  const PlannedAdapter adapter(options, {options.engine});
  const ServedModel served = served_model(adapter, adapter.servers().front());
  if (!served.not_served.empty())
    throw Error(served.engine, served.not_served,
                fmt::format("lora-validate --engine {} says more of it", served.engine));
  FileScores out = score_lora(tokens, adapter.base(), served.lora, options);
  out.engine = served.engine;
  out.scores.format = "files as " + served.engine;
  std::vector<std::string> notes = adapter.subject().loaded->notes;
  notes.insert(notes.end(), served.notes.begin(), served.notes.end());
  if (std::string note = served_note(adapter, served, options.threads); !note.empty())
    notes.push_back(std::move(note));
  out.notes.insert(out.notes.begin(), notes.begin(), notes.end());
  return out;
}

FileScores score_meant(const TokenFile& tokens, const ScoreFilesOptions& options) {
  const Model model = open_model(options);
  const Adapter* adapter = model.adapter();
  FileScores out =
      score_lora(tokens, model.base(),
                 adapter == nullptr ? ModelLora() : lora_of(*adapter, model.base().spec), options);
  if (model.adapted)
    out.notes.insert(out.notes.begin(), model.adapted->notes.begin(), model.adapted->notes.end());
  return out;
}

}  // namespace

FileScores score_files(const TokenFile& tokens, const ScoreFilesOptions& options) {
  InputWatch watch;
  check_scoring(tokens, options);
  FileScores out =
      options.engine.empty() ? score_meant(tokens, options) : score_served(tokens, options);
  const std::vector<std::string> notes = reading_notes(tokens, options);
  out.notes.insert(out.notes.begin(), notes.begin(), notes.end());
  watch.check();
  return out;
}

FileScores score_files(const std::string& tokens, const ScoreFilesOptions& options) {
  InputWatch watch;
  const TokenFile read = read_tokens(tokens);
  FileScores out = score_files(read, options);
  watch.check();
  return out;
}

void write_scores(const FileScores& scored, const std::string& path) {
  const ScoreWriter& writer = score_writer(path);
  ReportFile file(path);
  file.write(writer.write(scored.scores, {scored.precision == Precision::f64, scored.temperature}));
}

namespace {

// Mean |d| of the same model with and without a server's roundings.
double bf16_noise(const TokenFile& tokens, const FileScores& own, ScoreFilesOptions files) {
  files.precision = own.precision == Precision::bf16 ? Precision::f32 : Precision::bf16;
  return measure(align(own.scores, score_files(tokens, files).scores).pairs).mean_abs;
}

}  // namespace

Comparison compare_with_files(const std::string& a, const ScoreFilesOptions& files,
                              const CompareLogprobsOptions& options) {
  InputWatch watch;
  ScoreFile system = read_scores(a);
  if (system.second)
    throw Error(a, "holds the scores of two systems: which one is to be compared with the files?",
                "give a file of one system's");
  const TokenFile tokens = read_tokens(a);
  FileScores own = score_files(tokens, files);
  CompareLogprobsOptions with = options;
  if (options.floor == "auto") {
    with.floor.clear();
    with.floor_mean = bf16_noise(tokens, own, files);
  }
  Comparison out = compare_logprobs(std::move(system.first), std::move(own.scores), with);
  out.files =
      FilesSide{own.base, own.adapter, std::string(precision_name(own.precision)), own.temperature};
  for (std::string& note : own.notes) out.notes.push_back(std::move(note));
  watch.check();
  return out;
}

std::string scoring_text(const FileScores& scored) {
  const size_t sequences = scored.scores.sequences.size();
  return fmt::format(
      "base     {}\nadapter  {}{}\n{} tokens in {} sequence{}: {} log-probabilities in {} "
      "precision at temperature {}\nmean {:.6g}, perplexity {:.6g}\n",
      printable(scored.base), scored.adapter.empty() ? "none" : printable(scored.adapter),
      scored.engine.empty() ? "" : fmt::format(", as {} is expected to compute it", scored.engine),
      scored.tokens(), sequences, sequences == 1 ? "" : "s", scored.scored(),
      precision_name(scored.precision), scored.temperature, scored.mean(),
      std::exp(-scored.mean()));
}

}  // namespace moelora
