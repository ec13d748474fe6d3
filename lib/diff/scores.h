#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

namespace moelora {

struct TopToken {
  int64_t token;
  double logprob;
};

// One sequence as one system scored it. Position i holds log p(token i | tokens before it), in
// nats, under the temperature the system used.
struct Sequence {
  std::vector<int64_t> tokens;     // ids; empty where the file has none
  std::vector<std::string> texts;  // of the tokens, where the file has them; else empty
  std::vector<double> logprobs;    // one a position
  std::vector<bool> scored;        // one a position: false where the file has no value (null)
  std::vector<bool> counted;       // the file's own mask; empty: every position counts
  std::vector<std::vector<TopToken>> top;  // best first; empty, or one a position
  std::optional<size_t> prompt;            // how many tokens are the prompt, where the file says so

  size_t size() const { return logprobs.size(); }

  // One position more; nullopt where it has no value.
  void add(std::optional<double> logprob) {
    logprobs.push_back(logprob.value_or(0));
    scored.push_back(logprob.has_value());
  }
};

// The scores of one system.
struct Scores {
  std::string path, format;  // format: the id of a LogprobFormat
  std::string side;          // in a file of two sides: "training_logprobs", ...; else ""
  std::vector<Sequence> sequences;
  std::vector<std::string> notes;  // what was assumed, for people
};

// A file holds the scores of one system, or those of two for the same tokens (a trainer's dump).
struct ScoreFile {
  Scores first;
  std::optional<Scores> second;
};

// Throws Error: the file cannot be read, no format knows it, or it holds no log-probability.
ScoreFile read_scores(const std::string& path);

}  // namespace moelora
