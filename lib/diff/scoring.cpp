#include "lib/diff/scoring.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <utility>

#include "lib/adapter/adapter_file.h"
#include "lib/base/nearest.h"
#include "lib/base/utf8.h"
#include "lib/compare/served_difference.h"
#include "lib/diff/lora_scoring.h"
#include "lib/diff/score_file.h"
#include "lib/diff/served_model.h"
#include "lib/forward/score_tokens.h"
#include "lib/io/input_watch.h"
#include "lib/io/report_file.h"
#include "lib/model/base_model.h"

namespace moelora {
namespace {

constexpr std::array<std::string_view, 3> kPrecisions = {"double", "float", "bf16"};  // in order

void check(const TokenFile& tokens, const ScoreFilesOptions& options) {
  if (options.base.empty())
    throw Error(Option::base, "is missing: nothing says which model scores the tokens",
                {"name a model folder with its weights: ", Option::base, " MODEL"});
  if (options.top < 0) throw Error("top", fmt::format("is {}, expected 0 or more", options.top));
  size_t longest = 0;
  for (size_t s = 0; s < tokens.sequences.size(); ++s) {
    const size_t length = tokens.sequences[s].tokens.size();
    if (length == 0) throw Error(tokens.path, fmt::format("sequence {} has no tokens", s));
    longest = std::max(longest, length);
  }
  if (longest < 2)
    throw Error(tokens.path, "has no sequence of two tokens: the first of one has no score");
}

// What the logits are divided by.
double temperature_of(const TokenFile& tokens, const ScoreFilesOptions& options) {
  const double out = options.temperature.value_or(tokens.temperature.value_or(1));
  if (!(out > 0) || !std::isfinite(out))
    throw Error(options.temperature ? "temperature" : tokens.path + ": temperature",
                fmt::format("is {}, expected more than 0", out));
  return out;
}

// "tokens.npy does not say: mask (every token counts), temperature (1)"; "" where all is said.
std::string unsaid(const TokenFile& tokens, const ScoreFilesOptions& options) {
  const auto any = [&](auto&& has) {
    return std::any_of(tokens.sequences.begin(), tokens.sequences.end(), has);
  };
  std::vector<std::string_view> out;
  if (!any([](const TokenSequence& s) { return !s.counted.empty(); }))
    out.push_back("mask (every token counts)");
  if (!any([](const TokenSequence& s) { return s.prompt.has_value(); }))
    out.push_back("prompts' lengths");
  if (!options.temperature && !tokens.temperature) out.push_back("temperature (1 is assumed)");
  if (out.empty()) return "";
  return fmt::format("{} does not say: {}", tokens.path, fmt::join(out, ", "));
}

Sequence scored(const TokenSequence& from, TokenScores values) {
  Sequence out;
  out.tokens = from.tokens;
  out.counted = from.counted;
  out.prompt = from.prompt;
  out.add(std::nullopt);
  for (const double value : values.logprobs) out.add(value);
  if (values.top.empty()) return out;
  out.top.emplace_back();
  for (const auto& list : values.top) {
    auto& best = out.top.emplace_back();
    for (const TokenScores::Top& top : list) best.push_back({top.token, top.logprob});
  }
  return out;
}

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

template <class F>
void each_counted(const Scores& scores, F&& take) {
  for (const Sequence& sequence : scores.sequences)
    for (size_t i = 0; i < sequence.size(); ++i)
      if (sequence.scored[i] && (sequence.counted.empty() || sequence.counted[i]))
        take(sequence.logprobs[i]);
}

// A value that is not a number comes from weights that are none, or too large for the precision.
void note_not_finite(FileScores& out) {
  size_t count = 0;
  each_counted(out.scores, [&](double value) { count += std::isfinite(value) ? 0 : 1; });
  if (count > 0)
    out.notes.push_back(
        fmt::format("{} log-probabilities are not finite: weights may be NaN or "
                    "infinite",
                    count));
}

}  // namespace

size_t FileScores::tokens() const {
  size_t out = 0;
  for (const Sequence& sequence : scores.sequences) out += sequence.size();
  return out;
}

size_t FileScores::scored() const {
  size_t out = 0;
  each_counted(scores, [&](double) { ++out; });
  return out;
}

double FileScores::mean() const {
  double sum = 0;
  each_counted(scores, [&](double value) { sum += value; });
  return sum / static_cast<double>(scored());
}

std::string_view precision_name(Precision precision) {
  return kPrecisions[static_cast<size_t>(precision)];
}

std::vector<std::string> precision_names() {
  return {std::begin(kPrecisions), std::end(kPrecisions)};
}

Precision precision_by_name(std::string_view name) {
  const auto* found = std::find(std::begin(kPrecisions), std::end(kPrecisions), name);
  if (found == std::end(kPrecisions)) throw unknown_word({}, "precision", name, kPrecisions);
  return static_cast<Precision>(found - std::begin(kPrecisions));
}

FileScores score_lora(const TokenFile& tokens, const BaseModel& base, const ModelLora& lora,
                      const ScoreFilesOptions& options) {
  check(tokens, options);
  FileScores out;
  out.precision = options.precision;
  out.temperature = temperature_of(tokens, options);
  out.base = base.origin;
  out.adapter = options.adapter;
  std::vector<std::vector<int64_t>> sequences;
  for (const TokenSequence& each : tokens.sequences) sequences.push_back(each.tokens);
  std::vector<TokenScores> values = score_tokens(base, lora, sequences,
                                                 {options.precision, out.temperature, options.top,
                                                  options.threads, options.memory, options.job});
  out.scores.path = options.adapter.empty() ? options.base : options.adapter;
  out.scores.format = "files";
  for (size_t s = 0; s < values.size(); ++s)
    out.scores.sequences.push_back(scored(tokens.sequences[s], std::move(values[s])));
  if (out.scored() == 0)
    throw Error(tokens.path, "has a mask that leaves out every token that has a score");
  note_not_finite(out);
  return out;
}

std::vector<std::string> reading_notes(const TokenFile& tokens, const ScoreFilesOptions& options) {
  std::vector<std::string> out = tokens.notes;
  if (std::string note = unsaid(tokens, options); !note.empty()) out.push_back(std::move(note));
  return out;
}

namespace {

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
  check(tokens, options);
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

Comparison compare_with_files(const std::string& a, const ScoreFilesOptions& files,
                              const CompareLogprobsOptions& options) {
  InputWatch watch;
  ScoreFile system = read_scores(a);
  if (system.second)
    throw Error(a, "holds the scores of two systems: which one is to be compared with the files?",
                "give a file of one system's");
  FileScores own = score_files(a, files);
  Comparison out = compare_logprobs(std::move(system.first), std::move(own.scores), options);
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
