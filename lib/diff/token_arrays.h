#pragma once

#include <string>
#include <vector>

#include "lib/diff/score_input.h"
#include "lib/diff/token_sequences.h"

namespace moelora {

// The part of read_tokens() that is about named arrays of ids: without log-probabilities, a bare
// .npy, and verl's batches, whose log-probabilities are of the responses alone and whose input_ids
// hold the prompts too.
bool has_token_arrays(const ScoreInput& input);
std::vector<TokenSequence> sequences_of_arrays(const ScoreInput& input,
                                               std::vector<std::string>& notes);

// "sequence 0, position 3".
std::string token_place(size_t sequence, size_t position);

// Throws Error at `path` for a number that is none.
int64_t token_id_of(double value, const std::string& path, size_t sequence, size_t position);

inline constexpr const char* kGiveTokenIds =
    "give token ids: .npy or .json; in Python tokenizers.Tokenizer.from_file(\"tokenizer.json\")"
    ".encode(text).ids makes them";

}  // namespace moelora
