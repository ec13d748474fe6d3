#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/diff/scores.h"
#include "lib/io/json.h"

namespace moelora {

// Numbers in one or two dims, row-major: of a tensor, an array, or a list of lists in a pickle.
// Token ids are exact in a double.
struct ScoreArray {
  int64_t rows = 1, columns = 0;  // one dim: rows is 1
  std::vector<double> values;
};

// A file as its bytes say it is, before any format looks at it. One of the parts is filled.
struct ScoreInput {
  std::string path;
  std::optional<Json> json;      // one JSON document
  std::vector<Json> json_lines;  // one document a line
  std::map<std::string, ScoreArray>
      arrays;  // of safetensors, .npz, .npy (named "") and torch files
  std::vector<std::vector<std::string>> table;  // of CSV, the heading first
};

// Reads and takes apart a file of any kind. Throws Error.
ScoreInput read_score_input(const std::string& path);

// The documents of an input: the items of a JSON array, the lines, or the one document.
std::vector<const Json*> documents(const ScoreInput& input);

// A value that must be a finite number or null (then nullopt); Error at `where` otherwise.
std::optional<double> number_or_null(const Json& value, const std::string& where);

// A member that must be there and of this kind; Error names the place in the file.
const Json& member(const Json& object, std::string_view key, Json::Kind kind,
                   const std::string& path);

// "token_id:17" -> 17.
std::optional<int64_t> token_id_of(std::string_view text);

// SGLang's [logprob or null, token id, text or null].
struct Triple {
  std::optional<double> logprob;
  int64_t token;
  std::string text;
};
Triple read_triple(const Json& entry, const std::string& path);

// Drops texts and top lists that hold nothing.
void tidy(Sequence& sequence);

}  // namespace moelora
