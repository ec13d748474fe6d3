#pragma once

#include <string>

#include "lib/diff/token_sequences.h"

namespace moelora {

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
