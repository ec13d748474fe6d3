#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/diff/scores.h"
#include "lib/io/json.h"

namespace moelora {

// Numbers in one or two dims, of the best tokens in three, row-major: of a tensor, an array, or a
// list of lists in a pickle. Token ids are exact in a double.
struct ScoreArray {
  int64_t rows = 1, columns = 0;  // one dim: rows is 1
  std::vector<double> values;
  int64_t depth = 1;  // of three dims the last: rows * columns * depth values

  std::span<const double> row(int64_t i) const {
    const auto width = static_cast<size_t>(columns * depth);
    return std::span(values).subspan(static_cast<size_t>(i) * width, width);
  }
};

// A file as its bytes say it is, before any format looks at it. One of the parts is filled. Files
// are large and hold little but numbers: what takes several times their size is never whole in
// memory.
struct ScoreInput {
  std::string path;
  // A JSON document; of JSON lines the array of one: formats read line after line, and the first
  // line decides which does.
  std::optional<Json> json;
  std::vector<Sequence> numbers;  // of a JSON list of numbers, or of lists of them
  // Of safetensors, .npz, .npy (named "") and torch files.
  std::map<std::string, ScoreArray> arrays;
  std::string table;  // the text of CSV
  std::string lines;  // the text of JSON lines, for line_input
};

// Reads and takes apart a file of any kind. Throws Error.
ScoreInput read_score_input(const std::string& path);

// One line of JSON lines; `where` names it in messages.
ScoreInput line_input(std::string_view line, const std::string& path, const std::string& where);

// The next line of a text that is not empty, without its end; nullopt at the end of the text.
std::optional<std::string_view> take_line(std::string_view& text);

}  // namespace moelora
