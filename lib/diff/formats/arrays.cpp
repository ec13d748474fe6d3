// Named arrays (.safetensors, .npz, torch.save): tokens or input_ids or token_ids [S, T], and the
// log-probabilities [S, T] or [S, T-1] (the first token has none) as logprobs, or both sides of a
// trainer's dump: training_logprobs and sampling_logprobs (SGLang's compare_sample_train_data.pt),
// trainer_logprobs and inference_logprobs, verl's old_log_probs and rollout_log_probs of the
// responses, and so on. One dim is one sequence. Rows of tokens are filled up with -1, which is no
// token; prompt_lengths is [S]; top_tokens and top_logprobs are [S, T or T-1, k], filled up with -1
// too.

#include <fmt/core.h>

#include <array>
#include <cmath>
#include <span>

#include "lib/base/error.h"
#include "lib/diff/logprob_format.h"

namespace moelora {
namespace {

constexpr std::array<std::string_view, 4> kTokens = {"tokens", "input_ids", "token_ids",
                                                     "responses"};
constexpr std::array<std::string_view, 3> kMasks = {"loss_mask", "response_mask", "mask"};
constexpr std::array<std::string_view, 4> kOne = {"logprobs", "token_logprobs", "log_probs", ""};
constexpr std::array<std::pair<std::string_view, std::string_view>, 6> kBoth = {
    {{"training_logprobs", "sampling_logprobs"},
     {"trainer_logprobs", "inference_logprobs"},
     {"train_log_probs", "rollout_log_probs"},
     {"old_log_probs", "rollout_log_probs"},
     {"prev_logprobs", "generation_logprobs"},
     {"logprobs_a", "logprobs_b"}}};

const ScoreArray* find(const ScoreInput& input, std::string_view name) {
  const auto at = input.arrays.find(std::string(name));
  return at == input.arrays.end() ? nullptr : &at->second;
}

template <size_t N>
const ScoreArray* find_any(const ScoreInput& input, const std::array<std::string_view, N>& names) {
  for (std::string_view name : names)
    if (const ScoreArray* array = find(input, name)) return array;
  return nullptr;
}

bool claims(const ScoreInput& input) {
  if (find_any(input, kOne) != nullptr) return true;
  for (const auto& [first, second] : kBoth)
    if (find(input, first) != nullptr && find(input, second) != nullptr) return true;
  return false;
}

void check_rows(const ScoreArray& values, const ScoreArray& tokens, std::string_view name,
                const std::string& path) {
  if (values.rows == tokens.rows &&
      (values.columns == tokens.columns || values.columns + 1 == tokens.columns))
    return;
  throw Error(
      path, fmt::format("{} is [{}, {}] and the tokens are [{}, {}]: expected as many, or one less "
                        "a sequence",
                        name, values.rows, values.columns, tokens.rows, tokens.columns));
}

// Row `s` of the values; with one value less than tokens, the first token has none.
Sequence read_sequence(const ScoreArray& values, const ScoreArray* tokens, const ScoreArray* mask,
                       int64_t s) {
  Sequence out;
  const int64_t width = tokens != nullptr ? tokens->columns : values.columns;
  if (tokens != nullptr)
    for (const double id : tokens->row(s)) out.tokens.push_back(static_cast<int64_t>(id));
  while (!out.tokens.empty() && out.tokens.back() == -1) out.tokens.pop_back();
  const int64_t length = tokens != nullptr ? std::ssize(out.tokens) : width;
  const int64_t unscored = width - values.columns;
  for (int64_t i = 0; i < length; ++i)
    out.add(i < unscored ? std::nullopt
                         : std::optional(values.row(s)[static_cast<size_t>(i - unscored)]));
  if (unscored == 0 && tokens != nullptr && length > 0 && out.logprobs[0] == 0)
    out.scored[0] = false;  // a filler: no token has probability 1 for sure
  for (int64_t i = 0; mask != nullptr && i < length; ++i)
    out.counted.push_back(mask->row(s)[static_cast<size_t>(i)] != 0);
  return out;
}

void check_id(double id, const std::string& path) {
  if (!(id >= 0) || id > 9e15 || std::nearbyint(id) != id)
    throw Error(path, fmt::format("{} is not a token id", id));
}

void check_tokens(const ScoreArray& tokens, const std::string& path) {
  for (int64_t s = 0; s < tokens.rows; ++s) {
    std::span<const double> row = tokens.row(s);
    while (!row.empty() && row.back() == -1) row = row.first(row.size() - 1);
    for (const double id : row) check_id(id, path);
  }
}

// Those of the values' own length where there are some: verl has the prompts' tokens beside them.
const ScoreArray* tokens_of(const ScoreInput& input, const ScoreArray& values) {
  for (std::string_view name : kTokens)
    if (const ScoreArray* array = find(input, name);
        array != nullptr && array->columns == values.columns)
      return array;
  return find_any(input, kTokens);
}

// The best tokens of row `s`, of which the first `unscored` positions have none.
std::vector<std::vector<TopToken>> top_of_row(const ScoreArray& ids, const ScoreArray& values,
                                              int64_t s, int64_t unscored, size_t length) {
  std::vector<std::vector<TopToken>> out(length);
  const auto depth = static_cast<size_t>(ids.depth), first = static_cast<size_t>(unscored);
  for (size_t i = first; i < length; ++i)
    for (size_t at = (i - first) * depth; at < (i - first + 1) * depth; ++at)
      if (const double id = ids.row(s)[at]; id != -1)
        out[i].push_back({static_cast<int64_t>(id), values.row(s)[at]});
  return out;
}

void add_top(const ScoreInput& input, const ScoreArray& scores, Scores& out) {
  const ScoreArray *ids = find(input, "top_tokens"), *values = find(input, "top_logprobs");
  if (ids == nullptr || values == nullptr) return;
  for (const ScoreArray* each : {ids, values})
    if (each->rows != scores.rows || each->columns != scores.columns || each->depth != ids->depth) {
      out.notes.push_back("top_tokens or top_logprobs has another shape than the scores: not used");
      return;
    }
  for (const double id : ids->values)
    if (id != -1) check_id(id, input.path);
  const ScoreArray* tokens = tokens_of(input, scores);
  const int64_t unscored = tokens != nullptr ? tokens->columns - scores.columns : 0;
  for (int64_t s = 0; s < scores.rows; ++s) {
    Sequence& sequence = out.sequences[static_cast<size_t>(s)];
    sequence.top = top_of_row(*ids, *values, s, unscored, sequence.size());
    tidy(sequence);
  }
}

// prompt_lengths [S], -1 where it is not known.
void add_prompts(const ScoreInput& input, Scores& out) {
  const ScoreArray* lengths = find(input, "prompt_lengths");
  if (lengths == nullptr || lengths->values.size() != out.sequences.size()) return;
  for (size_t s = 0; s < out.sequences.size(); ++s) {
    const double length = lengths->values[s];
    if (length >= 0 && length <= static_cast<double>(out.sequences[s].size()))
      out.sequences[s].prompt = static_cast<size_t>(length);
  }
}

Scores read_side(const ScoreInput& input, std::string_view name) {
  Scores out;
  out.side = name;
  const ScoreArray& values = *find(input, name);
  const ScoreArray* tokens = tokens_of(input, values);
  if (tokens != nullptr) {
    check_rows(values, *tokens, name.empty() ? "the array" : name, input.path);
    check_tokens(*tokens, input.path);
  }
  const ScoreArray* mask = find_any(input, kMasks);
  if (mask != nullptr && (mask->rows != values.rows ||
                          mask->columns != (tokens != nullptr ? tokens : &values)->columns)) {
    out.notes.push_back("the mask has another shape than the tokens: not used");
    mask = nullptr;
  }
  for (int64_t s = 0; s < values.rows; ++s)
    out.sequences.push_back(read_sequence(values, tokens, mask, s));
  add_prompts(input, out);
  return out;
}

ScoreFile read(const ScoreInput& input) {
  for (const auto& [first, second] : kBoth)
    if (find(input, first) != nullptr && find(input, second) != nullptr)
      return {read_side(input, first), read_side(input, second)};
  for (std::string_view name : kOne)
    if (const ScoreArray* values = find(input, name)) {
      Scores out = read_side(input, name);
      add_top(input, *values, out);
      return {std::move(out), std::nullopt};
    }
  throw Error(input.path, "holds no array named logprobs");
}

}  // namespace

const LogprobFormat arrays_format = {
    "arrays", "tokens and logprobs as .safetensors, .npz, .npy or torch.save (one side or both)",
    claims, read};

}  // namespace moelora
