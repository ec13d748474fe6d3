#pragma once

#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lib/adapter/adapter_file.h"
#include "lib/base/error.h"
#include "lib/check/adapter_parts.h"
#include "lib/compare/forward_check.h"
#include "lib/engine/served_adapter.h"
#include "lib/model/base_model.h"
#include "lib/numeric/stats/value_stats.h"

namespace moelora {

// A weights file of an adapter's folder, with lazy tensors.
struct SubjectFile {
  std::string name;  // in the folder
  TensorMap tensors;
};

// Why part of an adapter could not be read. The rules FMT001 to FMT004, FMT021 and CFG001 turn
// these into findings.
struct ReadProblem {
  enum class Kind : uint8_t {
    no_folder,    // the path is not there or cannot be listed
    no_config,    // no adapter_config.json
    bad_config,   // not JSON, or against the strict rules
    no_weights,   // no weights file at all
    bad_weights,  // malformed safetensors, refused pickle
    wrong_kind,   // a .safetensors that is something else: a zip, a Git LFS pointer, HTML ...
    bad_shards,   // an index or shards that do not fit together
  };
  Kind kind;
  std::string file;  // in the folder; "" the folder
  Error error;
};

// An adapter under judgement: first what lies on disk (or what a specimen says lies there), then
// what it means. Nothing here throws for what a user's adapter does wrong.
struct Subject {
  // As found.
  std::string given;  // the path as the user gave it; findings and fixes name it
  std::string folder;
  std::vector<std::string> listing;  // names of the folder's files, sorted
  bool has_config = false;
  Json config;
  std::vector<SubjectFile> files;      // every weights file that could be opened, sorted by name
  std::string main_file;               // the adapter's weights; an index's name when sharded
  std::vector<std::string> own_files;  // those of `files` that hold the adapter's tensors
  bool sharded = false, pickle = false;
  std::optional<Json> added_tokens;
  std::vector<ReadProblem> problems;
  std::vector<SafetensorsFile> open_files;  // keeps `files` readable

  // What it means; filled by interpret().
  TensorMap tensors;  // the adapter's own, moved out of `files`: of main_file or its shards
  std::optional<AdapterConfig> parsed_config;  // nullopt: `config_error` says why
  std::optional<Error> config_error;
  std::optional<BaseModel> base;
  std::optional<Interpretation> loaded;  // canonical form; nullopt: `adapter_error` says why
  std::optional<Error> adapter_error;
  std::vector<ExpertTensor> experts;  // routed-expert factors by name, whatever their layout
  AdapterParts parts;                 // every tensor's name taken apart, and factors paired
  const Layout* layout = nullptr;     // of the experts; null: none, or `layout_error`
  std::optional<Error> layout_error;
  std::vector<std::string> notes;  // what was assumed, for people
  ServedAdapter served;            // headers and config, for the engines

  // Of the tensors' values; empty when they were not looked at.
  std::map<std::string, ValueStats> values;

  // What its forward computes against the source's, where both were asked for (JudgeRequest).
  std::optional<StageReport> forward;
  std::string forward_not_run;  // why

  const ModelSpec* spec() const { return base ? &base->spec : nullptr; }
};

struct SubjectOptions {
  LoadOptions load;
  bool values = true;
  int threads = 0;
};

// Reads what lies at `path` (a folder, or a weights file in one).
Subject open_subject(const std::string& path);

// Fills everything below "What it means".
void interpret(Subject& subject, std::optional<BaseModel> base, const SubjectOptions& options);

}  // namespace moelora
