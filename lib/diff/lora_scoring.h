#pragma once

#include <string>
#include <vector>

#include "lib/diff/file_scores.h"
#include "lib/diff/token_sequences.h"
#include "lib/forward/model_lora.h"
#include "lib/model/base_model.h"

namespace moelora {

// score_files() with a base that is open and whatever is on it. Its notes are about the result
// alone.
FileScores score_lora(const TokenFile& tokens, const BaseModel& base, const ModelLora& lora,
                      const ScoreFilesOptions& options);

// Throws Error for what cannot be scored, whatever the model: no base, no sequence of two tokens.
void check_scoring(const TokenFile& tokens, const ScoreFilesOptions& options);

// What was assumed in reading the tokens, for people.
std::vector<std::string> reading_notes(const TokenFile& tokens, const ScoreFilesOptions& options);

}  // namespace moelora
