#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/diff/scores.h"

namespace moelora {

// How scores are written down besides their values.
struct ScoreFileOptions {
  bool wide = false;       // F64 values, else F32
  double temperature = 1;  // recorded where the format has a place for it, when it is not 1
};

// A kind of file that read_scores() reads back. Values are those of F32 or F64 to the last digit.
struct ScoreWriter {
  std::string_view ending;   // ".safetensors"
  std::string_view summary;  // for --help and REFERENCE.md
  std::string (*write)(const Scores& scores, const ScoreFileOptions& options);
  bool has_mask, has_prompt, has_top;  // what it has a place for
};

std::span<const ScoreWriter> all_score_writers();

// By the ending of the name. Throws Error that lists the endings.
const ScoreWriter& score_writer(const std::string& path);

// What of the scores this kind of file does not hold: "the mask". Positions that a mask leaves out
// then have no value.
std::vector<std::string_view> not_held(const ScoreWriter& writer, const Scores& scores);

// The bytes of the file: same scores, same bytes. REQUIRES: every sequence has its tokens, and the
// first position of none is scored.
std::string scores_as_safetensors(const Scores& scores, const ScoreFileOptions& options);
std::string scores_as_npz(const Scores& scores, const ScoreFileOptions& options);
std::string scores_as_json(const Scores& scores, const ScoreFileOptions& options);
std::string scores_as_json_lines(const Scores& scores, const ScoreFileOptions& options);
std::string scores_as_csv(const Scores& scores, const ScoreFileOptions& options);

}  // namespace moelora
