#include "lib/diff/logprob_format.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <iterator>

#include "lib/base/error.h"
#include "lib/diff/number_list.h"

namespace moelora {

std::vector<const Json*> documents(const ScoreInput& input) {
  std::vector<const Json*> out;
  if (!input.json) return out;
  if (!input.json->is(Json::Kind::array)) return {&*input.json};
  for (const Json& item : input.json->items()) out.push_back(&item);
  return out;
}

bool is_score(const Json& value) {
  return value.is_number() ||
         (value.is(Json::Kind::string) && not_finite(value.as_string()).has_value());
}

double score_of(const Json& value) {
  return value.is_number() ? value.as_double() : *not_finite(value.as_string());
}

std::optional<double> number_or_null(const Json& value, const std::string& where) {
  if (value.is(Json::Kind::null)) return std::nullopt;
  if (!is_score(value))
    throw Error(place_of(value, where),
                fmt::format("{} where a log-probability was expected", value.kind_name()));
  return score_of(value);
}

const Json& member(const Json& object, std::string_view key, Json::Kind kind,
                   const std::string& path) {
  const Json* value = object.find(key);
  if (value == nullptr) throw Error(place_of(object, path), fmt::format("has no \"{}\"", key));
  if (!value->is(kind))
    throw Error(place_of(*value, path),
                fmt::format("\"{}\" is {}, which was not expected", key, value->kind_name()));
  return *value;
}

const Json* find_list(const Json& object, std::string_view key) {
  const Json* value = object.find(key);
  return value != nullptr && value->is(Json::Kind::array) ? value : nullptr;
}

void tidy(Sequence& sequence) {
  const auto& texts = sequence.texts;
  if (std::all_of(texts.begin(), texts.end(), [](const auto& text) { return text.empty(); }))
    sequence.texts.clear();
  const auto& top = sequence.top;
  if (std::all_of(top.begin(), top.end(), [](const auto& list) { return list.empty(); }))
    sequence.top.clear();
}

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

// Rounding may lift a log-probability of 0 a little; a probability of more than 1 is none.
std::string note_above_zero(const Scores& scores) {
  constexpr double kRounding = 1e-3;
  size_t count = 0;
  double largest = 0;
  for (const Sequence& sequence : scores.sequences)
    for (size_t i = 0; i < sequence.size(); ++i)
      if (sequence.scored[i] && sequence.logprobs[i] > kRounding) {
        ++count;
        largest = std::max(largest, sequence.logprobs[i]);
      }
  if (count == 0) return "";
  return fmt::format("{} value{} above 0, up to {:.6g}: a log-probability never is", count,
                     count == 1 ? " is" : "s are", largest);
}

void finish(const std::string& path, std::string_view format, Scores& scores) {
  scores.path = path;
  scores.format = format;
  if (std::string note = note_above_zero(scores); !note.empty())
    scores.notes.push_back(std::move(note));
  for (const Sequence& sequence : scores.sequences)
    if (std::find(sequence.scored.begin(), sequence.scored.end(), true) != sequence.scored.end())
      return;
  throw Error(path, "holds no log-probability",
              "ask the server for them: examples/capture_logprobs.sh shows how");
}

const LogprobFormat* find_format(const ScoreInput& input) {
  for (const LogprobFormat* format : kAll)
    if (format->claims(input)) return format;
  return nullptr;
}

const LogprobFormat& format_of(const ScoreInput& input) {
  if (const LogprobFormat* found = find_format(input)) return *found;
  throw Error(input.path, "is in no format of log-probabilities that is known", formats_hint());
}

void append(Scores part, Scores& out) {
  std::move(part.sequences.begin(), part.sequences.end(), std::back_inserter(out.sequences));
  for (std::string& note : part.notes)
    if (std::find(out.notes.begin(), out.notes.end(), note) == out.notes.end())
      out.notes.push_back(std::move(note));
}

// JSON lines: the first decides the format, each is read by itself.
ScoreFile read_lines(const ScoreInput& file, const LogprobFormat*& format) {
  ScoreFile out;
  int number = 0;
  std::string_view text = file.lines;
  while (const auto line = take_line(text)) {
    const std::string where = fmt::format("{}, line {}", file.path, ++number);
    const ScoreInput input = line_input(*line, file.path, where);
    if (format == nullptr) format = &format_of(input);
    ScoreFile part = format->read(input);
    if (number == 1) {
      out = std::move(part);
      continue;
    }
    if (part.first.side != out.first.side || part.second.has_value() != out.second.has_value())
      throw Error(where, "holds the log-probabilities of other sides than the first line");
    append(std::move(part.first), out.first);
    if (out.second) append(std::move(*part.second), *out.second);
  }
  return out;
}

}  // namespace

std::span<const LogprobFormat* const> all_logprob_formats() { return kAll; }

bool is_logprob_file(const ScoreInput& input) { return find_format(input) != nullptr; }

ScoreFile read_scores(const ScoreInput& input) {
  const LogprobFormat* format = nullptr;
  ScoreFile out;
  if (input.lines.empty()) {
    format = &format_of(input);
    out = format->read(input);
  } else {
    out = read_lines(input, format);
  }
  finish(input.path, format->id, out.first);
  if (out.second) finish(input.path, format->id, *out.second);
  return out;
}

ScoreFile read_scores(const std::string& path) { return read_scores(read_score_input(path)); }

}  // namespace moelora
