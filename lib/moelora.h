#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lib/adapter/adapter.h"
#include "lib/adapter/inspect.h"
#include "lib/base/error.h"
#include "lib/base/progress.h"
#include "lib/check/finding.h"
#include "lib/check/repair.h"
#include "lib/check/report_options.h"
#include "lib/diff/comparison.h"
#include "lib/diff/inspection_page.h"
#include "lib/diff/prediction.h"
#include "lib/diff/score_file.h"
#include "lib/diff/scoring.h"
#include "lib/diff/weight_comparison.h"

// The front door of the library: what the tools can do, as functions. All of them
//   - take one options struct, whose `job` has the callbacks `progress` and `cancelled`;
//   - return plain data, or throw Error: what a tool refuses the function refuses, in the same
//     words. Cancelled is an Error too: whatever was being written is not there;
//   - print nothing, never exit, and touch no signal.
// A folder that is written appears complete or not at all.

namespace moelora {

// One adapter.

// Inspection inspect(path, LoadOptions): see lib/adapter/inspect.h.

// An adapter of any layout in canonical form: dense pairs by module path, experts by layer and
// projection, the scale of each pair. Its tensors are lazy and keep the files open.
Adapter load(const std::string& path, const LoadOptions& options = {});

// The elements of a factor (F64, F32, F16 or BF16), row-major.
std::vector<double> values(const Tensor& tensor);

struct WriteAdapterOptions {
  std::string to;    // layout id
  std::string base;  // the model the adapter is for: folder, config.json or hub name; needed
  std::vector<std::string> model_specs = {};
  uint64_t max_shard_size = 0;  // 0: one file
  bool force = false;           // replace an existing output folder
  bool sync = true;             // wait for the disk
  int threads = 0;              // 0: all
  JobControl job = {};
};

// Writes an adapter made in memory (Tensor::of_f32, or tensors of a loaded one): modules by the
// base model's own paths, experts with gate and up apart. Of its config r, lora_alpha and
// use_rslora count where config.json is null; scales of single pairs become patterns.
void write(const Adapter& adapter, const std::string& out, const WriteAdapterOptions& options);

// Converting.

struct ConvertResult {
  std::string layout;  // "dense" without routed experts
  std::vector<ModuleRow> modules;
  std::vector<TensorInfo> tensors;  // of the output, by name
  uint64_t bytes = 0;               // of these tensors
  std::string config;               // adapter_config.json; "" for a server's buffers
  std::vector<std::string> notes;   // assumptions, changes and losses, for people
  int64_t verified = 0;             // factors or buffers that were compared
  int64_t same_product = 0;         // pairs of other values, the same product to 1e-7 of its norm
  bool repaired = false;    // changed for an engine: deltas match the input to within one rounding
  std::string server;       // whose buffers these are: "sglang@0.5.18"
  int64_t tp_rank = 0;      // of which rank
  std::string left_behind;  // what to say of a replaced folder (force) that could not be removed
};

struct ConvertOptions : LoadOptions {
  // A layout's id; or what a server holds in its memory: "sglang-pool", "vllm-stacked". May be ""
  // with `engine`: then its own choice.
  std::string to;
  std::string engine;                       // repair for and write what it loads: "sglang@0.5.18"
  std::vector<std::string> server_options;  // how it is started: "virtual-experts=on"
  // router, bias, saved-modules, embeddings, vision, text, value-head
  std::vector<std::string> drop;
  std::optional<BOrder> out_b_order;  // of a written stacked lora_B
  std::optional<Roles> out_roles;     // of a written stacked lora_A
  bool canonical_names = false;       // gate/up/down where the family says w1/w3/w2
  std::optional<DType> dtype;         // cast every factor; unset keeps
  bool verify = false;          // recompute every element from the input before the output appears
  bool dry_run = false;         // check and plan, write nothing
  uint64_t max_shard_size = 0;  // 0: one file
  bool force = false;           // replace an existing output folder
  bool sync = true;             // wait for the disk
  int threads = 0;              // 0: all
  // Called when all is written and verified and before the output appears, with all but
  // `left_behind`: to say so where that can fail. What it throws leaves nothing.
  std::function<void(const ConvertResult& result)> ready = {};
};

ConvertResult convert(const std::string& in, const std::string& out, const ConvertOptions& options);

// The same of an adapter in memory: `tensors` by the names that its trainer would write (views of
// any source, lib/base/source.h), `config` the text of its adapter_config.json.
ConvertResult convert(const TensorMap& tensors, std::string_view config, const std::string& out,
                      const ConvertOptions& options);

// Validating.

struct ValidateOptions : LoadOptions {
  std::vector<std::string> engines;         // NAME or NAME@VERSION: "vllm@0.22"
  std::vector<std::string> server_options;  // "KEY=VALUE", as the server's own flags are called
  std::optional<int64_t> tp, ep, max_lora_rank, max_loras;
  std::optional<uint64_t> gpu_memory;        // bytes of one device
  std::optional<double> compute_capability;  // 9.0
  bool look_at_values = true;                // else names and shapes only
  bool numeric = false;                      // compute too: what servers make of it
  std::string source;                        // the adapter that these were made from; with numeric
  std::string device = "auto";               // auto, cpu or cuda: where to compute
  bool forward = true;                       // with a source: run both through their layers too
  std::vector<std::string> ignore;           // rules not to fail for, by id or name
  std::string project;                       // a project file; "" none
  int threads = 0;                           // 0: all
  // The adapters in the folders that are named and in those below them (checkpoints of a training).
  bool recursive = false;
  // Each is judged as the only one of its server, and let go then: for as many as there are. So it
  // is with `recursive` and `cache`; else those of one base are one deployment.
  bool one_by_one = false;
  // A folder that keeps which adapters were found clean. One whose config and headers are as they
  // were then is not judged again, nor are its values read: the report says of how many.
  std::string cache;
};

// A finding that the caller has decided to live with: not counted, never fails, but reported.
struct IgnoredFinding {
  Finding finding;
  std::string reason, from;  // from: "ignore FMT004", ".moelora.json:3:5"
};

struct ValidationReport;  // lib/check/validate.h

// Not judged: there was no base model for a server that was asked for, and nothing else failed.
enum class Outcome : uint8_t { clean, findings, not_judged };

struct Validation {
  std::vector<std::string> adapters;  // as given, or found
  std::vector<Finding> findings;      // by deployment, adapter, then severity, then rule
  std::vector<IgnoredFinding> ignored;
  std::vector<std::pair<std::string, std::string>> skipped;  // what was not checked, and why
  std::vector<std::string> notes;                            // what was assumed
  std::vector<std::string> unused_ignores;  // "--ignore FMT004: nothing to ignore: ..."
  int64_t rules_run = 0;
  std::shared_ptr<const ValidationReport> details;  // for report()

  // What the findings that are not ignored come to; with nullopt none fails.
  Outcome outcome(std::optional<Severity> fail_on = Severity::error) const;
  // Whether one of them is at least this severe.
  bool fails(Severity severity = Severity::error) const;
};

// Adapters that one server is to serve. Several files of a folder are its adapter, once; files of
// other kinds beside adapters are passed over with a note. What is wrong with them is a finding;
// throws Error for what the options name wrongly.
Validation validate(const std::vector<std::string>& adapters, const ValidateOptions& options);

// "text", "json", "sarif", "junit", "github", "markdown".
std::string report(const Validation& validation, std::string_view format,
                   const ReportOptions& options = {});
std::string summary(const Validation& validation, const ReportOptions& options = {});  // one line

// The repair of the most severe error or warning that lora-convert repairs without leaving anything
// out; null for none. REQUIRES one adapter.
const Repair* find_repair(const Validation& validation);

// Carries it out: what `repair.command(out)` would write.
ConvertResult repair_adapter(const Repair& repair, const std::string& out,
                             const JobControl& job = {});

// Comparing.

// WeightComparison compare_weights(a, b, CompareWeightsOptions): see lib/diff/weight_comparison.h.
// Comparison compare_logprobs(a, b, CompareLogprobsOptions): see lib/diff/comparison.h; of files,
// or of scores in memory.

// The model's own word.

// FileScores score_files(tokens, ScoreFilesOptions): log-probabilities of given tokens out of a
// base model's files and an adapter's, see lib/diff/scoring.h. read_tokens(path):
// lib/diff/token_file.h; as files: lib/diff/score_file.h.
// Predictions predict(tokens, PredictOptions): what servers' handling of the adapter costs, see
// lib/diff/prediction.h.

}  // namespace moelora
