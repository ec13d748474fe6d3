#include "lib/diff/lora_scoring.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <cmath>
#include <utility>

#include "lib/forward/score_tokens.h"

namespace moelora {
namespace {

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

// A value that is not a number comes from weights that are none, or too large for the precision.
void note_not_finite(FileScores& out) {
  if (const size_t count = out.not_finite(); count > 0)
    out.notes.push_back(
        fmt::format("{} log-probabilities are not finite: weights may be NaN or "
                    "infinite",
                    count));
}

}  // namespace

void check_scoring(const TokenFile& tokens, const ScoreFilesOptions& options) {
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

FileScores score_lora(const TokenFile& tokens, const BaseModel& base, const ModelLora& lora,
                      const ScoreFilesOptions& options) {
  check_scoring(tokens, options);
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

}  // namespace moelora
