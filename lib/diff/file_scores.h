#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/adapter/config/adapter_config.h"
#include "lib/diff/scores.h"
#include "lib/forward/precision.h"

namespace moelora {

// What tokens are scored with: `base` with its weights is needed. `from` and the other fields are
// about the adapter.
struct ScoreFilesOptions : LoadOptions {
  std::string adapter = {};  // folder or weights file; "" the base alone
  // "sglang@0.5.23": with what that server is expected to compute of the adapter; "" with what the
  // files mean. REQUIRES `adapter`
  std::string engine = {};
  std::vector<std::string> server_pairs = {};  // of the server: "tp-size=2"
  Precision precision = Precision::f32;
  // Logits are divided by it; unset: what the token file says, else 1.
  std::optional<double> temperature = {};
  int top = 0;                          // how many of the most probable tokens at each position
  int threads = 0;                      // 0: all
  uint64_t memory = uint64_t{2} << 30;  // of activations (lib/forward/score_tokens.h)
};

// The model's own word: teacher-forced log-probabilities out of files alone. Mask and prompts'
// lengths of the token file are carried over.
struct FileScores {
  Scores scores;
  std::string base, adapter;  // where they were read
  std::string engine;         // that is expected to compute this; "" what the files mean
  Precision precision = Precision::f32;
  double temperature = 1;
  std::vector<std::string> notes;  // what was assumed, for people

  size_t tokens() const;
  size_t scored() const;  // positions that have a value and that no mask leaves out
  double mean() const;    // of these
  size_t not_finite() const;
};

// "double", "float", "bf16".
std::string_view precision_name(Precision precision);
std::vector<std::string> precision_names();          // of all: "double", "float", "bf16"
Precision precision_by_name(std::string_view name);  // throws Error that lists the names

}  // namespace moelora
