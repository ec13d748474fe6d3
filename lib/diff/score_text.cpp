// Scores as text. JSON is what SGLang's /generate answers with return_logprob: what is known of
// prompts and of the best tokens has a place in it. A position without a value is null there and
// empty in CSV.

#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "lib/diff/score_file.h"

namespace moelora {
namespace {

// The shortest text that reads as the same F32 or F64; what is not finite as Python's json has it.
std::string number_text(double value, bool wide) {
  if (std::isnan(value)) return "NaN";
  if (std::isinf(value)) return value < 0 ? "-Infinity" : "Infinity";
  return wide ? fmt::format("{}", value) : fmt::format("{}", static_cast<float>(value));
}

bool has_value(const Sequence& sequence, size_t i) {
  return sequence.scored[i] && (sequence.counted.empty() || sequence.counted[i]);
}

std::string entry(const Sequence& sequence, size_t i, bool wide) {
  const std::string value =
      has_value(sequence, i) ? number_text(sequence.logprobs[i], wide) : "null";
  return fmt::format("[{}, {}, null]", value, sequence.tokens[i]);
}

std::string top_entry(const Sequence& sequence, size_t i, bool wide) {
  if (sequence.top[i].empty()) return "null";
  std::string out;
  for (const TopToken& top : sequence.top[i])
    out += fmt::format("{}[{}, {}, null]", out.empty() ? "" : ", ", number_text(top.logprob, wide),
                       top.token);
  return "[" + out + "]";
}

// Positions [first, last).
template <class Entry>
std::string list(size_t first, size_t last, Entry&& text) {
  std::string out = "[";
  for (size_t i = first; i < last; ++i) out += (i == first ? "" : ", ") + text(i);
  return out + "]";
}

std::string document(const Sequence& sequence, bool wide) {
  const size_t size = sequence.size();
  const size_t prompt = std::min(sequence.prompt.value_or(size), size);
  std::string out;
  const auto add = [&](std::string_view side, size_t first, size_t last) {
    out += fmt::format("{}\"{}_token_logprobs\": {}", out.empty() ? "" : ", ", side,
                       list(first, last, [&](size_t i) { return entry(sequence, i, wide); }));
    if (!sequence.top.empty())
      out += fmt::format(", \"{}_top_logprobs\": {}", side,
                         list(first, last, [&](size_t i) { return top_entry(sequence, i, wide); }));
  };
  add("input", 0, prompt);
  add("output", prompt, size);
  return fmt::format("{{\"meta_info\": {{\"prompt_tokens\": {}, {}}}}}", prompt, out);
}

}  // namespace

std::string scores_as_json(const Scores& scores, const ScoreFileOptions& options) {
  std::string out;
  for (const Sequence& sequence : scores.sequences)
    out += (out.empty() ? "" : ",\n") + document(sequence, options.wide);
  return "[\n" + out + "\n]\n";
}

std::string scores_as_json_lines(const Scores& scores, const ScoreFileOptions& options) {
  std::string out;
  for (const Sequence& sequence : scores.sequences) out += document(sequence, options.wide) + "\n";
  return out;
}

std::string scores_as_csv(const Scores& scores, const ScoreFileOptions& options) {
  std::string out = "sequence,token_id,logprob\n";
  for (size_t s = 0; s < scores.sequences.size(); ++s) {
    const Sequence& sequence = scores.sequences[s];
    for (size_t i = 0; i < sequence.size(); ++i)
      out += fmt::format(
          "{},{},{}\n", s, sequence.tokens[i],
          has_value(sequence, i) ? number_text(sequence.logprobs[i], options.wide) : "");
  }
  return out;
}

}  // namespace moelora
