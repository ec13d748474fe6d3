#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lib/adapter/adapter_file.h"
#include "lib/adapter/adapter_folder.h"
#include "lib/base/dotted_path.h"
#include "lib/base/error.h"
#include "lib/check/subject/adapter_parts.h"
#include "lib/compare/forward_check.h"
#include "lib/engine/served_adapter.h"
#include "lib/model/base_model.h"
#include "lib/numeric/stats/value_stats.h"

namespace moelora {

// An adapter that is checked: first what lies on disk (or what a specimen says lies there), then
// what it means. Nothing here throws for what a user's adapter does wrong.
struct Subject : AdapterFolder {
  // Compiled once in the source file rather than in every file that uses it.
  Subject();
  Subject(const Subject&);
  Subject(Subject&&) noexcept;
  Subject& operator=(const Subject&);
  Subject& operator=(Subject&&) noexcept;
  ~Subject();

  // What it means; filled by interpret().
  TensorMap tensors;  // the adapter's own, moved out of `files`: of main_file or its shards
  std::optional<AdapterConfig> parsed_config;  // nullopt: `config_error` says why
  PathEnds target_parameters;                  // of parsed_config
  const Dialect* dialect = nullptr;            // that lora-convert translates; null for PEFT's
  std::optional<Error> config_error;
  std::optional<BaseModel> base;
  std::optional<Interpretation> loaded;  // canonical form; nullopt: `adapter_error` says why
  std::optional<Error> adapter_error;
  std::vector<ExpertTensor> experts;  // routed-expert factors by name, whatever their layout
  AdapterParts parts;                 // every tensor's name taken apart, and factors paired
  const Layout* layout = nullptr;     // of the experts; null: none, or `layout_error`
  std::optional<Error> layout_error;
  ServedAdapter served;  // headers and config, for the engines

  // Of the tensors' values; empty when they were not looked at.
  std::map<std::string, ValueStats> values;

  // Compared with a source, and not in PEFT's form on disk (another trainer's dialect, a whole
  // model's state): the same put into it. Both unset for PEFT's own.
  std::shared_ptr<const Subject> translated;
  std::optional<Error> untranslated;  // why it could not be
  // Of such a translation: what the files call a tensor, by its name here.
  std::map<std::string, std::string> own_names;

  // What its forward computes against the source's, where both were asked for (ValidateRequest).
  std::optional<StageReport> forward;
  std::string forward_not_run;  // why

  const ModelSpec* spec() const { return base ? &base->spec : nullptr; }
  // The base model's module of a tensor; null for none.
  const LinearSpec* linear_of(const NamedTensor& tensor) const;
};

struct SubjectOptions {
  LoadOptions load;
  bool values = true;
  int threads = 0;
};

// Reads what lies at `path` (a folder, or a weights file in one).
Subject open_subject(const std::string& path, const InputOptions& options = {});

// What a comparison with a source is about: the adapter in PEFT's form. Throws Error where it could
// not be put into it.
const Subject& in_peft_form(const Subject& subject);

// Fills everything below "What it means".
void interpret(Subject& subject, std::optional<BaseModel> base, const SubjectOptions& options);

}  // namespace moelora
