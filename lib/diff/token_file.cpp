#include "lib/diff/token_file.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>

#include "lib/base/error.h"
#include "lib/base/utf8.h"
#include "lib/diff/logprob_format.h"
#include "lib/diff/token_arrays.h"

namespace moelora {
namespace {

// ---- ids alone ----

std::vector<TokenSequence> of_lists(const ScoreInput& input) {
  std::vector<TokenSequence> out;
  for (size_t s = 0; s < input.numbers.size(); ++s) {
    const Sequence& list = input.numbers[s];
    TokenSequence& sequence = out.emplace_back();
    for (size_t i = 0; i < list.size(); ++i) {
      if (!list.scored[i])
        throw Error(input.path, fmt::format("{}: null is not a token id", token_place(s, i)),
                    kGiveTokenIds);
      sequence.tokens.push_back(token_id_of(list.logprobs[i], input.path, s, i));
    }
  }
  return out;
}

// ---- files of log-probabilities ----

// Servers and trainers that were told to say the log-probabilities of what they sample from say so
// themselves, where they say it at all.
void refuse_processed(const Json& document, const std::string& path) {
  const Json* mode = document.find("logprobs_mode");
  if (mode == nullptr || !mode->is(Json::Kind::string) || mode->as_string() == "raw_logprobs")
    return;
  throw Error(
      place_of(*mode, path),
      fmt::format("logprobs_mode is {}: what is compared with a model are log-probabilities "
                  "before top-p, top-k and penalties",
                  in_quotes(mode->as_string())),
      "start the server with --logprobs-mode raw_logprobs");
}

// An array of one number beside the scores, as score_file.h writes it. A server's answer may name
// its request's temperature, which its log-probabilities are not divided by.
std::optional<double> temperature_of(const ScoreInput& input) {
  const auto array = input.arrays.find("temperature");
  if (array == input.arrays.end() || array->second.values.size() != 1) return std::nullopt;
  return array->second.values[0];
}

// What a server scored and did not say the id of.
void check_ids(const Sequence& sequence, size_t s, const std::string& path) {
  if (sequence.tokens.empty())
    throw Error(path,
                fmt::format("sequence {} has no token ids{}", s,
                            sequence.texts.empty() ? "" : ", only their texts"),
                sequence.texts.empty()
                    ? Hint(kGiveTokenIds)
                    : Hint("ask the server for ids (return_tokens_as_token_ids), or give them "
                           "alone: .npy or .json"));
  const auto unknown = std::find_if(sequence.tokens.begin(), sequence.tokens.end(),
                                    [](int64_t token) { return token < 0; });
  if (unknown != sequence.tokens.end())
    throw Error(path,
                fmt::format("{}: the token's id is not in the file",
                            token_place(s, static_cast<size_t>(unknown - sequence.tokens.begin()))),
                "keep prompt_token_ids of the server's answer");
}

// Nothing comes before the first token of a text, so it has no score; one that has is of a text
// whose beginning is not in the file. Trainers write 0 where nothing is scored.
void check_begin(const Sequence& sequence, size_t s, const std::string& path) {
  const bool counts = sequence.counted.empty() || sequence.counted[0];
  if (!sequence.scored[0] || sequence.logprobs[0] == 0 || !counts) return;
  throw Error(path,
              fmt::format("sequence {} begins with a token that has a score: what came before it, "
                          "a prompt, is not in the file",
                          s),
              "ask for the prompt's log-probabilities too (echo, prompt_logprobs, "
              "logprob_start_len 0), or give the ids of the whole text");
}

void take_scores(ScoreFile file, TokenFile& out) {
  const auto has_ids = [](const Sequence& s) { return !s.tokens.empty(); };
  Scores& first = file.first;
  const bool use_second =
      file.second && !std::any_of(first.sequences.begin(), first.sequences.end(), has_ids);
  Scores& scores = use_second ? *file.second : first;
  out.format = scores.format;
  out.notes = scores.notes;
  for (size_t s = 0; s < scores.sequences.size(); ++s) {
    Sequence& sequence = scores.sequences[s];
    if (sequence.size() > 0) {
      check_ids(sequence, s, out.path);
      check_begin(sequence, s, out.path);
    }
    // A mask may be on either side (NeMo-RL).
    if (sequence.counted.empty() && file.second && s < file.second->sequences.size())
      sequence.counted = file.second->sequences[s].counted;
    out.sequences.push_back(
        {std::move(sequence.tokens), std::move(sequence.counted), sequence.prompt});
  }
}

bool is_text(const ScoreInput& input) {
  if (!input.table.empty()) return true;
  constexpr std::array<std::string_view, 3> kTexts = {"text", "prompt", "messages"};
  for (const Json* document : documents(input)) {
    if (document->is(Json::Kind::string)) return true;
    for (const std::string_view key : kTexts)
      if (document->find(key) != nullptr) return true;
  }
  return false;
}

// Of JSON lines the first, which decides what the others are.
ScoreInput first_line(const ScoreInput& input) {
  std::string_view text = input.lines;
  return line_input(*take_line(text), input.path, input.path + ", line 1");
}

void take_documents(const ScoreInput& input, TokenFile& out) {
  const ScoreInput first = input.lines.empty() ? ScoreInput{} : first_line(input);
  const ScoreInput& seen = input.lines.empty() ? input : first;
  for (const Json* document : documents(seen)) refuse_processed(*document, input.path);
  if (is_logprob_file(seen)) return take_scores(read_scores(input), out);
  if (is_text(seen))
    throw Error(input.path,
                "holds text: turning it into token ids needs a tokenizer, which is not built in",
                kGiveTokenIds);
  throw Error(input.path, "holds neither token ids nor log-probabilities in a form that is known",
              kGiveTokenIds);
}

}  // namespace

TokenFile read_tokens(const std::string& path) {
  const ScoreInput input = read_score_input(path);
  TokenFile out{path, "ids", {}};
  out.temperature = temperature_of(input);
  if (!input.numbers.empty())
    out.sequences = of_lists(input);
  else if (has_token_arrays(input))
    out.sequences = sequences_of_arrays(input, out.notes);
  else
    take_documents(input, out);
  return out;
}

}  // namespace moelora
