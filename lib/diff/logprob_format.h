#pragma once

#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/diff/score_input.h"
#include "lib/diff/scores.h"
#include "lib/io/json.h"

namespace moelora {

// A way to write log-probabilities down. Each is one file formats/NAME.cpp that defines `const
// LogprobFormat NAME_format`; the folder is the registry.
struct LogprobFormat {
  std::string_view id;       // the name of its file, with hyphens
  std::string_view summary;  // for --help and the table of REFERENCE.md
  bool (*claims)(const ScoreInput& input);
  ScoreFile (*read)(const ScoreInput& input);  // REQUIRES claims(); throws Error
};

// Every file of formats/ as a symbol: vllm_format, ...
#define MOELORA_ENTRY(name) extern const LogprobFormat name##_format;
#include "formats.inc"
#undef MOELORA_ENTRY

std::span<const LogprobFormat* const> all_logprob_formats();

// Whether some format reads it. Of JSON lines: ask of the first (line_input).
bool is_logprob_file(const ScoreInput& input);

// As read_scores() of scores.h, of a file that was taken apart.
ScoreFile read_scores(const ScoreInput& input);

// The documents of an input: the items of a JSON array, or the one document.
std::vector<const Json*> documents(const ScoreInput& input);

// Whether this is a number, or one of the words that stand for one that is not finite: "-Infinity",
// "Infinity", "NaN" (Python writes them bare, read_scores puts them between quotes).
bool is_score(const Json& value);
double score_of(const Json& value);  // REQUIRES is_score()

// A value that must be a score or null (then nullopt); Error at `where` otherwise.
std::optional<double> number_or_null(const Json& value, const std::string& where);

// A member that must be there and of this kind; Error names the place in the file.
const Json& member(const Json& object, std::string_view key, Json::Kind kind,
                   const std::string& path);

// A member that may be there; null where it is not, or is not an array.
const Json* find_list(const Json& object, std::string_view key);

// Drops texts and top lists that hold nothing.
void tidy(Sequence& sequence);

}  // namespace moelora
