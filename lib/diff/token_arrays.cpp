#include "lib/diff/token_arrays.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <span>

#include "lib/base/error.h"
#include "lib/diff/logprob_format.h"

namespace moelora {
namespace {

constexpr std::array<std::string_view, 3> kTokens = {"tokens", "input_ids", "token_ids"};
constexpr std::array<std::string_view, 3> kMasks = {"loss_mask", "response_mask", "mask"};

const ScoreArray* find(const ScoreInput& input, std::string_view name) {
  const auto at = input.arrays.find(std::string(name));
  return at == input.arrays.end() ? nullptr : &at->second;
}

const ScoreArray* find_any(const ScoreInput& input, std::span<const std::string_view> names) {
  for (const std::string_view name : names)
    if (const ScoreArray* array = find(input, name)) return array;
  return nullptr;
}

struct Range {
  size_t first, last;
};

// The tokens of a row that are no padding. Trainers pad prompts at the front.
Range real_part(std::span<const double> ids, const ScoreArray* attention, size_t s,
                const std::string& path) {
  if (attention == nullptr) {
    size_t last = ids.size();
    while (last > 0 && ids[last - 1] == -1) --last;
    return {0, last};
  }
  const auto row = attention->row(static_cast<int64_t>(s));
  const auto is_set = [](double value) { return value != 0; };
  const auto first = std::find_if(row.begin(), row.end(), is_set);
  const auto last = std::find_if(row.rbegin(), row.rend(), is_set).base();
  if (first >= last) return {0, 0};
  if (const auto hole = std::find(first, last, 0.0); hole != last)
    throw Error(path,
                fmt::format("{}: attention_mask leaves out a token between others",
                            token_place(s, static_cast<size_t>(hole - row.begin()))),
                "packed sequences cannot be scored: give each one a row");
  return {static_cast<size_t>(first - row.begin()), static_cast<size_t>(last - row.begin())};
}

bool same_shape(const ScoreArray& a, const ScoreArray& b) {
  return a.rows == b.rows && a.columns == b.columns;
}

const ScoreArray* attention_of(const ScoreInput& input, const ScoreArray& tokens) {
  const ScoreArray* out = find(input, "attention_mask");
  if (out == nullptr || same_shape(*out, tokens)) return out;
  throw Error(input.path, fmt::format("attention_mask is [{}, {}] and the tokens are [{}, {}]",
                                      out->rows, out->columns, tokens.rows, tokens.columns));
}

// verl's batch: the last columns of input_ids are the responses.
const ScoreArray* responses_of(const ScoreInput& input) {
  const ScoreArray *ids = find(input, "input_ids"), *responses = find(input, "responses");
  const bool holds = ids != nullptr && responses != nullptr && ids->rows == responses->rows &&
                     ids->columns >= responses->columns;
  return holds ? responses : nullptr;
}

// What a file says of its tokens, and where the responses begin.
struct Columns {
  const ScoreArray& tokens;
  const ScoreArray *attention, *mask;
  size_t prompt = 0;  // columns of tokens before those of the mask
  bool knows_prompt = false;
};

Columns columns_of(const ScoreInput& input, std::vector<std::string>& notes) {
  const ScoreArray* responses = responses_of(input);
  const ScoreArray* bare = find(input, "");
  const ScoreArray& tokens = responses != nullptr ? *find(input, "input_ids")
                             : bare != nullptr    ? *bare
                                                  : *find_any(input, kTokens);
  Columns out{tokens, attention_of(input, tokens), find_any(input, kMasks)};
  if (responses != nullptr) {
    if (out.attention == nullptr)
      throw Error(input.path, "has no attention_mask: which of input_ids are padding is not known",
                  "save the batch with its attention_mask");
    out.prompt = static_cast<size_t>(tokens.columns - responses->columns);
    out.knows_prompt = true;
  }
  const ScoreArray& masked = responses != nullptr ? *responses : tokens;
  if (out.mask != nullptr && !same_shape(*out.mask, masked)) {
    notes.push_back("the mask has another shape than the tokens: not used");
    out.mask = nullptr;
  }
  return out;
}

TokenSequence sequence_of(const Columns& columns, size_t s, const std::string& path) {
  const auto row = static_cast<int64_t>(s);
  const auto ids = columns.tokens.row(row);
  const Range real = real_part(ids, columns.attention, s, path);
  TokenSequence out;
  for (size_t i = real.first; i < real.last; ++i) {
    out.tokens.push_back(token_id_of(ids[i], path, s, i));
    if (columns.mask != nullptr)
      out.counted.push_back(i >= columns.prompt && columns.mask->row(row)[i - columns.prompt] != 0);
  }
  if (columns.knows_prompt)
    out.prompt = std::clamp(columns.prompt, real.first, real.last) - real.first;
  return out;
}

}  // namespace

std::string token_place(size_t sequence, size_t position) {
  return fmt::format("sequence {}, position {}", sequence, position);
}

int64_t token_id_of(double value, const std::string& path, size_t sequence, size_t position) {
  if (value >= 0 && value < 9e15 && std::nearbyint(value) == value)
    return static_cast<int64_t>(value);
  throw Error(path, fmt::format("{}: {} is not a token id", token_place(sequence, position), value),
              value < 0 ? "log-probabilities alone cannot be scored: their tokens must be there"
                        : kGiveTokenIds);
}

bool has_token_arrays(const ScoreInput& input) {
  if (find(input, "") != nullptr || responses_of(input) != nullptr) return true;
  return !is_logprob_file(input) && find_any(input, kTokens) != nullptr;
}

std::vector<TokenSequence> sequences_of_arrays(const ScoreInput& input,
                                               std::vector<std::string>& notes) {
  const Columns columns = columns_of(input, notes);
  std::vector<TokenSequence> out;
  for (size_t s = 0; s < static_cast<size_t>(columns.tokens.rows); ++s)
    out.push_back(sequence_of(columns, s, input.path));
  return out;
}

}  // namespace moelora
