#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/page/page.h"
#include "lib/diff/comparison.h"
#include "lib/diff/scoring.h"

namespace moelora {

// What a server's handling of an adapter costs, in nats, before one is started: the model as the
// server would compute it (lib/engine: what it holds and what its kernels make of that) against the
// model that the files mean, on the same tokens.

struct PredictOptions : ScoreFilesOptions {
  std::vector<std::string> engines = {};  // "sglang@0.5.23", "vllm"; `engine` is not looked at
  std::vector<std::string> most = {};     // "k2=5e-3": the largest value that passes
};

// One reason why a server computes something else, and what is left without it. Shares of several
// need not add up to the whole: effects of wrong deltas are not linear.
struct PredictedShare {
  std::vector<std::string> rules;  // lora-validate's ids; none where no rule explains it
  std::string what;                // "lost: gate_proj and up_proj of layers 0-3, experts 0-7"
  int64_t deltas = 0;              // that are wrong for this reason
  Metrics without;                 // with these as the adapter means them
};

struct Prediction {
  std::string engine;      // "sglang@0.5.23"
  std::string not_served;  // the server's words where it refuses, or why nothing can be said; then
                           // there are notes alone
  std::optional<Comparison> against_files;  // A the files, B the server
  std::vector<PredictedShare> shares;       // the largest k3 first
  std::vector<std::string> notes;
};

struct Predictions {
  FileScores files;  // what the files mean
  std::vector<Prediction> servers;
  std::vector<std::string> notes;

  bool passes() const;  // every server that was asked for serves it, within the thresholds
};

// Throws Error as score_files() and parse_engine() do.
Predictions predict(const TokenFile& tokens, const PredictOptions& options);
Predictions predict(const std::string& tokens, const PredictOptions& options);

std::string prediction_text(const Predictions& predictions);
std::string prediction_json(const Predictions& predictions);
std::string prediction_html(const Predictions& predictions, const PageOrigin& origin = {});

// One of them, by the name of its format; Error for another.
std::string prediction_report(const Predictions& predictions, std::string_view format,
                              const PageOrigin& origin = {});

}  // namespace moelora
