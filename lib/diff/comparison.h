#pragma once

#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/page/page.h"
#include "lib/base/progress.h"
#include "lib/diff/alignment.h"
#include "lib/diff/metrics.h"

namespace moelora {

// A threshold that a project uses for one model in its own tests.
struct Preset {
  std::string_view name;    // "sglang-gpt-oss-20b"
  std::string_view metric;  // of Metrics
  double most;
  std::string_view source;
};

std::span<const Preset> all_presets();
const Preset& preset_by_name(std::string_view name);  // throws Error that lists the names

struct Threshold {
  std::string metric;
  double most;
  std::string from;  // "--max", or the preset's name
};

struct CompareLogprobsOptions {
  std::vector<std::string> most = {};     // "k2=5e-3": the largest value that is still the same
  std::vector<std::string> presets = {};  // names of presets
  std::vector<Threshold> thresholds = {};
  std::string floor = {};                    // --floor: B's system again, on the same tokens
  std::optional<double> floor_mean = {};     // instead: mean |d| of that, already known
  std::string base_a = {}, base_b = {};      // the base model on each side
  std::vector<std::string> candidates = {};  // scores of A's system with other adapters
  size_t worst = 10;
  JobControl job = {};
};

// One statement about the two, with what it was decided on.
struct Statement {
  std::string id;  // "threshold", "close", "applied", "routed", "finite"
  bool holds;
  std::string text;  // "k2 1.85e-4 <= 5e-3 (sglang-gpt-oss-20b)"
};

// The effect of the adapter on each side, B's against A's: with e = (adapted - base) per token,
// d = e_B - e_A; what both systems do to the base model too cancels.
struct DeltaMetrics {
  int64_t n = 0;
  double effect_a = 0, effect_b = 0;              // mean |e|
  double mean_abs = 0, p95_abs = 0, max_abs = 0;  // of |d|
  double mean_abs_pct = 0;                        // 100 mean |d| / mean |e_A|
  std::optional<double> pearson;                  // of e_A and e_B
};

enum class Verdict : uint8_t { same, different, not_judged };
std::string_view verdict_name(Verdict verdict);  // "same", "different", "not judged"

// What B was computed from, and how, where it is the word of files (scoring.h).
struct FilesSide {
  std::string base, adapter, precision;  // adapter: "" for the base alone
  double temperature = 1;
};

struct Comparison {
  Scores a, b;
  std::optional<FilesSide> files;
  Alignment alignment;
  Metrics metrics;
  std::optional<Metrics> prompt, response;              // where a file has the prompt's length
  std::vector<std::pair<size_t, Metrics>> by_sequence;  // worst mean_abs first
  std::optional<TopMetrics> top;
  std::optional<DeltaMetrics> delta;
  std::optional<double> floor;  // mean |d| of the repeat
  std::vector<ScorePair> worst;
  std::vector<std::string> suspicions, notes;
  std::vector<Statement> statements;
  Verdict verdict = Verdict::not_judged;  // same: every statement holds and there is one
};

// `b` empty: the file `a` holds both sides. Throws Error where nothing can be compared.
Comparison compare_logprobs(const std::string& a, const std::string& b,
                            const CompareLogprobsOptions& options);

// The same of scores in memory; Scores::path is what reports call a side.
Comparison compare_logprobs(Scores a, Scores b, const CompareLogprobsOptions& options);

// Its reports, in lib/diff/reports. JSON is schemas/logprobs.schema.json, `with_scores` one that
// reads as a file of both sides again; HTML is a page of lib/base/page.
std::string comparison_text(const Comparison& comparison);
std::string comparison_json(const Comparison& comparison, bool with_scores = false);
std::string comparison_html(const Comparison& comparison, const PageOrigin& origin = {});

// One of them, by the name of its format; Error for another.
std::string comparison_report(const Comparison& comparison, std::string_view format,
                              bool with_scores = false, const PageOrigin& origin = {});

}  // namespace moelora
