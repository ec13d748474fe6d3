// Named arrays (.safetensors, .npz, torch.save): tokens or input_ids or token_ids [S, T], and the
// log-probabilities [S, T] or [S, T-1] (the first token has none) as logprobs, or both sides of a
// trainer's dump: training_logprobs and sampling_logprobs (SGLang's compare_sample_train_data.pt),
// trainer_logprobs and inference_logprobs, verl's old_log_probs and rollout_log_probs of the
// responses, and so on. One dim is one sequence.

#include <fmt/core.h>

#include <array>
#include <cmath>

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
  const int64_t length = tokens != nullptr ? tokens->columns : values.columns;
  if (length > values.columns) out.add(std::nullopt);
  for (int64_t i = 0; i < values.columns; ++i)
    out.add(values.values[static_cast<size_t>(s * values.columns + i)]);
  if (length == values.columns && tokens != nullptr && out.logprobs[0] == 0)
    out.scored[0] = false;  // a filler: no token has probability 1 for sure
  for (int64_t i = 0; tokens != nullptr && i < length; ++i)
    out.tokens.push_back(static_cast<int64_t>(tokens->values[static_cast<size_t>(s * length + i)]));
  for (int64_t i = 0; mask != nullptr && i < length; ++i)
    out.counted.push_back(mask->values[static_cast<size_t>(s * length + i)] != 0);
  return out;
}

void check_tokens(const ScoreArray& tokens, const std::string& path) {
  for (const double id : tokens.values)
    if (!(id >= 0) || id > 9e15 || std::nearbyint(id) != id)
      throw Error(path, fmt::format("{} is not a token id", id));
}

// Those of the values' own length where there are some: verl has the prompts' tokens beside them.
const ScoreArray* tokens_of(const ScoreInput& input, const ScoreArray& values) {
  for (std::string_view name : kTokens)
    if (const ScoreArray* array = find(input, name);
        array != nullptr && array->columns == values.columns)
      return array;
  return find_any(input, kTokens);
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
  return out;
}

ScoreFile read(const ScoreInput& input) {
  for (const auto& [first, second] : kBoth)
    if (find(input, first) != nullptr && find(input, second) != nullptr)
      return {read_side(input, first), read_side(input, second)};
  for (std::string_view name : kOne)
    if (find(input, name) != nullptr) return {read_side(input, name), std::nullopt};
  throw Error(input.path, "holds no array named logprobs");
}

}  // namespace

const LogprobFormat arrays_format = {
    "arrays", "tokens and logprobs as .safetensors, .npz, .npy or torch.save (one side or both)",
    claims, read};

}  // namespace moelora
