#include "lib/diff/score_file.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <array>

#include "lib/base/error.h"
#include "lib/base/utf8.h"

namespace moelora {
namespace {

constexpr std::array<ScoreWriter, 5> kWriters = {{
    {".safetensors", "tokens [n, len] and logprobs [n, len-1], filled up with -1 and NaN",
     scores_as_safetensors, true, true, true},
    {".npz", "the same arrays, for numpy.load", scores_as_npz, true, true, true},
    {".json", "as SGLang's /generate answers, a list of one document a sequence", scores_as_json,
     false, true, true},
    {".jsonl", "the same documents, one a line", scores_as_json_lines, false, true, true},
    {".csv", "sequence, token_id, logprob", scores_as_csv, false, false, false},
}};

}  // namespace

std::span<const ScoreWriter> all_score_writers() { return kWriters; }

const ScoreWriter& score_writer(const std::string& path) {
  std::vector<std::string_view> endings;
  for (const ScoreWriter& writer : kWriters) {
    if (path.ends_with(writer.ending)) return writer;
    endings.push_back(writer.ending);
  }
  throw Error(in_file(path), "its ending is of no kind of file that scores are written as",
              fmt::format("name it with {}", fmt::join(endings, ", ")));
}

std::vector<std::string_view> not_held(const ScoreWriter& writer, const Scores& scores) {
  const auto any = [&](auto&& has) {
    return std::any_of(scores.sequences.begin(), scores.sequences.end(), has);
  };
  std::vector<std::string_view> out;
  if (!writer.has_mask && any([](const Sequence& s) { return !s.counted.empty(); }))
    out.push_back("the mask");
  if (!writer.has_prompt && any([](const Sequence& s) { return s.prompt.has_value(); }))
    out.push_back("the prompts' lengths");
  if (!writer.has_top && any([](const Sequence& s) { return !s.top.empty(); }))
    out.push_back("the best tokens");
  return out;
}

}  // namespace moelora
