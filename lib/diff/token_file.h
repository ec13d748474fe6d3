#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace moelora {

// Token ids to be scored, from the first of their text on, and what a file says of them.
struct TokenSequence {
  std::vector<int64_t> tokens;
  std::vector<bool> counted = {};     // the file's mask, one a token; empty: all count
  std::optional<size_t> prompt = {};  // how many tokens are the prompt
};

struct TokenFile {
  std::string path;
  std::string format;  // "ids", or the id of a LogprobFormat
  std::vector<TokenSequence> sequences;
  std::optional<double> temperature = {};  // that the file's scores were computed at
  std::vector<std::string> notes = {};     // for people
};

// Reads token ids out of any of
//   .npy, a JSON list                  of ids [n, len] or [len]; of lists of any length in JSON
//   .safetensors, .npz, torch.save     tokens, input_ids or token_ids; attention_mask, loss_mask;
//                                      verl's input_ids with responses
//   whatever read_scores() reads       its ids, mask and prompt lengths
// Rows of an array are filled up with -1, or with what attention_mask leaves out at either end.
// Throws Error: the file cannot be read, has no ids (texts alone: this needs a tokenizer), has them
// from the middle of a text on, or holds log-probabilities of a processed distribution.
TokenFile read_tokens(const std::string& path);

}  // namespace moelora
