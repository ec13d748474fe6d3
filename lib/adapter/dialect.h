#pragma once

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/adapter/adapter_files.h"
#include "lib/base/tensor.h"
#include "lib/io/json_value.h"
#include "lib/model/model_spec.h"

namespace moelora {

// What a trainer other than PEFT wrote.
struct ForeignAdapter {
  const TensorMap& tensors;  // by the names of the file, wrappers of training left out
  const Json& config;        // its adapter_config.json; null where there is none
  const std::string& where;  // of the config, for messages; the folder where there is none
  const ModelSpec* spec;     // null without a base model
  ShardSet set = ShardSet::none;
};

// The same in PEFT's dialect. Only views are made of the tensors: renamed, transposed, cut,
// stacked.
struct Translation {
  // MODULE.lora_A.weight [r, in] and MODULE.lora_B.weight [out, r] with the hub's module paths;
  // routed experts as one of the layouts has them. What is no factor keeps its name.
  TensorMap tensors;
  std::map<std::string, std::string> own_names;  // AdapterFiles::own_names
  // lora_alpha of the modules for which the file holds one, by module path.
  std::map<std::string, double> alphas;
  bool joins = false;  // several factors into one, of a rank that the config does not say
  std::vector<std::string> notes;  // what was assumed, for people
};

// An adapter in PEFT's dialect that is to be written in another, its routed experts in the layout
// Dialect::through.
struct PeftAdapter {
  const TensorMap& tensors;
  const AdapterConfig& config;
  const ModelSpec* spec;  // null without a base model
};

// What a trainer's own folder holds. Only views are made of the tensors.
struct ForeignFiles {
  TensorMap tensors;
  Json config;  // its adapter_config.json
};

// A way to write down low-rank factors that is not PEFT's: other names, axes, or config. It is read
// by being translated into PEFT's, before anything is made of names; what comes after knows no
// dialect. Every dialect is one file in dialects/ that defines one `const Dialect
// dialects::NAME`; the folder is the registry. A name belongs to at most one.
struct Dialect {
  std::string_view id;       // what --from says, and --to where it is written: "mlx"
  std::string_view whose;    // completes "in the spelling of ...": "MLX"
  std::string_view names;    // what such names look like, for messages and the table
  std::string_view shapes;   // for the table
  std::string_view sources;  // the code these were read from
  std::string_view advice;   // what to do instead where it is not read: an instruction
  // Who else reads it; completes "which ...".
  std::string_view readers = "neither PEFT nor a server reads";

  // Whether a tensor of this name is a factor (or belongs to one) in this dialect. Numbers in a
  // name decide nothing: one name stands for all that differ from it in numbers.
  bool (*owns)(std::string_view name) = nullptr;
  ShardSet set = ShardSet::none;  // all files of such a set are in it
  // Where names do not tell: whether the file is in it. `samples` are one tensor of each name's
  // shape.
  bool (*fits)(std::span<const TensorMap::value_type* const> samples, const Json& config) = nullptr;
  // Where these do not tell either, and a base model is known (in.spec): whether its widths do.
  bool (*fits_base)(const ForeignAdapter& in) = nullptr;
  // PEFT's config from this trainer's own; null: trainers write PEFT's. What is not known without a
  // base model (alphas by module) is Translation's. Throws Error.
  Json (*config)(const ForeignAdapter& in) = nullptr;
  // Null: it is known by name, and refused with `advice`. Throws Error where the file lacks
  // something, or where a base model must be named (its heads, its modules) and `in.spec` is null.
  void (*read)(const ForeignAdapter& in, Translation& out) = nullptr;

  // Null: it is read, and not written. Throws Error where the trainer could not load the result, or
  // where a base model must be named.
  ForeignFiles (*write)(const PeftAdapter& in) = nullptr;
  std::string_view through = {};            // the layout in which `write` takes routed experts
  std::string_view stem = "adapter_model";  // of the weights' file that is written
};

// Every file of dialects/ as a symbol: dialects::mlx, ...
namespace dialects {
#define MOELORA_ENTRY(name) extern const Dialect name;
#include "dialects.inc"
#undef MOELORA_ENTRY
}  // namespace dialects

std::span<const Dialect* const> all_dialects();
// Null for a word that names none.
const Dialect* find_dialect(std::string_view id);

// The dialect that a tensor of this name is a factor of; null for a name that is PEFT's, or that
// is no factor's (a saved module, a bias). A name that says "lora" and is nobody's is of
// `unknown_dialect`.
const Dialect* dialect_of_name(std::string_view name);
extern const Dialect unknown_dialect;

// The factors of one dialect among the tensors of a file.
struct ForeignFactors {
  const Dialect* dialect;
  std::vector<std::string> names;  // sorted
};
std::vector<ForeignFactors> foreign_factors(const TensorMap& tensors);

// "8 of 24 tensors are low-rank factors in the spelling of MLX (...), which neither PEFT nor a
// server reads".
std::string describe(const ForeignFactors& found, size_t tensors);

// The dialect that --from or --to names: one that is read, or written. Null for "" and for a
// layout. Throws Error for any other word.
const Dialect* dialect_named(const std::string& word, Option said_by);

// The dialect that is read and that the file is in; null for PEFT's.
const Dialect* detect_dialect(const TensorMap& tensors, const Json& config,
                              ShardSet set = ShardSet::none);

// Whether the dialect that the file is in says in its tensors what others say in a config.
bool needs_no_config(const TensorMap& tensors);

// Sets files.config and files.dialect from what the folder's adapter_config.json says (null: there
// is none), from files.tensors and from what the user says. Throws Error.
void read_config(Json config, AdapterFiles& files, const std::string& from = "");

// Puts a file that is in a dialect (files.dialect) into PEFT's. Does nothing for others. Throws
// Error.
void translate(AdapterFiles& files, const ModelSpec* spec);

}  // namespace moelora
