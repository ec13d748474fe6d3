#pragma once

#include <string>

#include "lib/diff/comparison.h"
#include "lib/diff/file_scores.h"
#include "lib/diff/token_file.h"

namespace moelora {

// Throws Error before any weight is read: there is nothing to score, a family whose computation is
// not described, a base without weights, a token outside the vocabulary, a sequence longer than the
// model's positions, an adapter of another base, a server that refuses the adapter.
FileScores score_files(const TokenFile& tokens, const ScoreFilesOptions& options);
FileScores score_files(const std::string& tokens, const ScoreFilesOptions& options);

// Into a file of the kind that its ending names (score_file.h), which appears complete or not at
// all and is none that was read. Throws Error.
void write_scores(const FileScores& scored, const std::string& path);

// A system's scores (A) against those of the files that it was given (B), of the same tokens: is it
// right? With options.floor "auto" the noise that sound systems differ by is what the same model
// differs by when it rounds to BF16 as a server does. Throws Error too for a file of two systems'
// scores.
Comparison compare_with_files(const std::string& a, const ScoreFilesOptions& files,
                              const CompareLogprobsOptions& options);

std::string scoring_text(const FileScores& scored);  // a summary of four lines

}  // namespace moelora
