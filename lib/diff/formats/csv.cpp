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
  std::optional<size_t> sequence, id, token, one, first, second;
};

Columns columns_of(const Row& heading) {
  return {column(heading, {"sequence", "sequence_id", "prompt_id"}),
          column(heading, {"token_id"}),
          column(heading, {"token"}),
          column(heading, {"logprob", "log_prob"}),
          column(heading, {"logprob_a", "training_logprob", "trainer_logprob"}),
          column(heading, {"logprob_b", "sampling_logprob", "inference_logprob"})};
}

// Fields with quotes may hold commas; a doubled quote is one. Into the strings that `out` has.
void split(std::string_view line, Row& out) {
  out.resize(std::max<size_t>(out.size(), 1));
  size_t count = 1;
  out[0].clear();
  bool in_quotes = false;
  for (size_t i = 0; i < line.size(); ++i) {
    if (line[i] == '"' && in_quotes && i + 1 < line.size() && line[i + 1] == '"') {
      out[count - 1] += line[i++];
    } else if (line[i] == '"') {
      in_quotes = !in_quotes;
    } else if (line[i] == ',' && !in_quotes) {
      if (count++ == out.size()) out.emplace_back();
      out[count - 1].clear();
    } else {
      out[count - 1] += line[i];
    }
  }
  out.resize(count);
}

// Excel and pandas ("utf-8-sig") write a byte order mark in front.
Row heading_of(std::string_view& text) {
  constexpr std::string_view kMark = "\xEF\xBB\xBF";
  if (text.starts_with(kMark)) text.remove_prefix(kMark.size());
  Row out;
  if (const auto line = take_line(text)) split(*line, out);
  return out;
}

bool claims(const ScoreInput& input) {
  std::string_view text = input.table;
  const Columns c = columns_of(heading_of(text));
  return c.one || (c.first && c.second);
}

void add_value(const std::string& text, const Location& where, Sequence& out) {
  if (text.empty()) return out.add(std::nullopt);
  double value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size())
    throw Error(where, fmt::format("{} is not a log-probability", in_quotes(text)));
  out.add(value);
}

void add_id(const std::string& text, const Location& where, Sequence& out) {
  const auto id = parse_index(text);
  if (!id) throw Error(where, fmt::format("{} is not a token id", in_quotes(text)));
  out.tokens.push_back(*id);
}

// Ids where every token of a sequence is one, else texts.
void add_token(const std::string& text, Sequence& out) {
  const auto id = out.texts.empty() ? parse_index(text) : std::nullopt;
  if (id) return out.tokens.push_back(*id);
  for (const int64_t known : out.tokens) out.texts.push_back(std::to_string(known));
  out.tokens.clear();
  out.texts.push_back(text);
}

void add_row(const ScoreInput& input, const Columns& columns, size_t value_column, size_t number,
             const Row& row, std::string& last, Scores& out) {
  const std::string& id = columns.sequence ? row[*columns.sequence] : "";
  if (out.sequences.empty() || id != last) out.sequences.emplace_back();
  last = id;
  const Location where{input.path, static_cast<int>(number), 0, {}, {}};
  add_value(row[value_column], where, out.sequences.back());
  if (columns.id)
    add_id(row[*columns.id], where, out.sequences.back());
  else if (columns.token)
    add_token(row[*columns.token], out.sequences.back());
}

Scores read_side(const ScoreInput& input, const Columns& columns, size_t value_column) {
  Scores out;
  std::string_view text = input.table;
  const size_t fields = heading_of(text).size();  // and goes past it
  Row row;
  std::string last;
  for (size_t number = 2;; ++number) {
    const auto line = take_line(text);
    if (!line) break;
    split(*line, row);
    if (row.size() != fields)
      throw Error(Location{input.path, static_cast<int>(number), 0, {}, {}},
                  fmt::format("has {} fields, the heading {}", row.size(), fields));
    add_row(input, columns, value_column, number, row, last, out);
  }
  for (Sequence& sequence : out.sequences) {
    sequence.tokens.shrink_to_fit();
    sequence.logprobs.shrink_to_fit();
  }
  return out;
}

ScoreFile read(const ScoreInput& input) {
  std::string_view text = input.table;
  const Columns c = columns_of(heading_of(text));
  if (c.first && c.second) return {read_side(input, c, *c.first), read_side(input, c, *c.second)};
  return {read_side(input, c, *c.one), std::nullopt};
}

}  // namespace

const LogprobFormat csv_format = {
    "csv", "CSV with a heading: token_id, logprob (or logprob_a, logprob_b), sequence", claims,
    read};

}  // namespace moelora
