// A table with a heading: token or token_id, and logprob, or logprob_a and logprob_b; a column
// sequence separates sequences, rows are in the order of positions. An empty value is none.

#include <fmt/core.h>

#include <algorithm>
#include <charconv>
#include <initializer_list>

#include "lib/base/dotted_path.h"
#include "lib/base/error.h"
#include "lib/base/utf8.h"
#include "lib/diff/logprob_format.h"

namespace moelora {
namespace {

using Row = std::vector<std::string>;

std::optional<size_t> column(const Row& heading, std::initializer_list<std::string_view> names) {
  for (std::string_view name : names)
    if (const auto at = std::find(heading.begin(), heading.end(), name); at != heading.end())
      return static_cast<size_t>(at - heading.begin());
  return std::nullopt;
}

struct Columns {
  std::optional<size_t> sequence, token, one, first, second;
};

Columns columns_of(const Row& heading) {
  return {column(heading, {"sequence", "sequence_id", "prompt_id"}),
          column(heading, {"token_id", "token"}), column(heading, {"logprob", "log_prob"}),
          column(heading, {"logprob_a", "training_logprob", "trainer_logprob"}),
          column(heading, {"logprob_b", "sampling_logprob", "inference_logprob"})};
}

bool claims(const ScoreInput& input) {
  if (input.table.empty()) return false;
  const Columns c = columns_of(input.table.front());
  return c.one || (c.first && c.second);
}

void add_value(const std::string& text, const Location& where, Sequence& out) {
  if (text.empty()) return out.add(std::nullopt);
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size())
    throw Error(where, fmt::format("{} is not a log-probability", quoted(text)));
  out.add(value);
}

// Ids where every token of a sequence is one, else texts.
void add_token(const std::string& text, Sequence& out) {
  out.texts.push_back(text);
  const auto id = parse_index(text);
  if (id && out.tokens.size() + 1 == out.texts.size())
    out.tokens.push_back(*id);
  else
    out.tokens.clear();
}

Scores read_side(const ScoreInput& input, const Columns& columns, size_t value_column) {
  Scores out;
  std::string last;
  for (size_t r = 1; r < input.table.size(); ++r) {
    const Row& row = input.table[r];
    const Location where{input.path, static_cast<int>(r + 1), 0, {}, {}};
    if (row.size() != input.table.front().size())
      throw Error(where, fmt::format("has {} fields, the heading {}", row.size(),
                                     input.table.front().size()));
    const std::string id = columns.sequence ? row[*columns.sequence] : "";
    if (out.sequences.empty() || id != last) out.sequences.emplace_back();
    last = id;
    add_value(row[value_column], where, out.sequences.back());
    if (columns.token) add_token(row[*columns.token], out.sequences.back());
  }
  for (Sequence& sequence : out.sequences)  // texts that are ids, or ids beside texts
    if (sequence.tokens.size() == sequence.texts.size())
      sequence.texts.clear();
    else
      sequence.tokens.clear();
  return out;
}

ScoreFile read(const ScoreInput& input) {
  const Columns c = columns_of(input.table.front());
  if (c.first && c.second) return {read_side(input, c, *c.first), read_side(input, c, *c.second)};
  return {read_side(input, c, *c.one), std::nullopt};
}

}  // namespace

const LogprobFormat csv_format = {
    "csv", "CSV with a heading: token_id, logprob (or logprob_a, logprob_b), sequence", claims,
    read};

}  // namespace moelora
