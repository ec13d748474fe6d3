#pragma once

#include <string>
#include <vector>

#include "lib/diff/scoring.h"
#include "lib/forward/model_lora.h"
#include "lib/model/base_model.h"

namespace moelora {

// score_files() with a base that is open and whatever is on it. Its notes are about the result
// alone.
FileScores score_lora(const TokenFile& tokens, const BaseModel& base, const ModelLora& lora,
                      const ScoreFilesOptions& options);

// What was assumed in reading the tokens, for people.
std::vector<std::string> reading_notes(const TokenFile& tokens, const ScoreFilesOptions& options);

}  // namespace moelora
