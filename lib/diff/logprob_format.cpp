#include "lib/diff/logprob_format.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "lib/base/error.h"

namespace moelora {

#define MOELORA_ENTRY(name) extern const LogprobFormat name##_format;
#include "formats.inc"
#undef MOELORA_ENTRY

namespace {

constexpr std::array kAll = {
#define MOELORA_ENTRY(name) &name##_format,
#include "formats.inc"
#undef MOELORA_ENTRY
};

std::string formats_hint() {
  std::string out = "formats: ";
  for (const LogprobFormat* format : kAll)
    out += fmt::format("{}{}", format == kAll.front() ? "" : "; ", format->summary);
  return out;
}

void finish(const std::string& path, std::string_view format, Scores& scores) {
  scores.path = path;
  scores.format = format;
  for (const Sequence& sequence : scores.sequences)
    if (std::find(sequence.scored.begin(), sequence.scored.end(), true) != sequence.scored.end())
      return;
  throw Error(path, "holds no log-probability",
              "ask the server for them: examples/capture_logprobs.sh shows how");
}

}  // namespace

std::span<const LogprobFormat* const> all_logprob_formats() { return kAll; }

ScoreFile read_scores(const std::string& path) {
  const ScoreInput input = read_score_input(path);
  for (const LogprobFormat* format : kAll) {
    if (!format->claims(input)) continue;
    ScoreFile out = format->read(input);
    finish(path, format->id, out.first);
    if (out.second) finish(path, format->id, *out.second);
    return out;
  }
  throw Error(path, "is in no format of log-probabilities that is known", formats_hint());
}

void Sequence::add(double logprob) {
  logprobs.push_back(logprob);
  scored.push_back(true);
}

void Sequence::add_unscored() {
  logprobs.push_back(0);
  scored.push_back(false);
}

}  // namespace moelora
