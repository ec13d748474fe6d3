#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "lib/adapter/adapter_file.h"
#include "lib/adapter/config/config_writer.h"
#include "lib/io/output.h"
#include "lib/io/tensor_writer.h"

namespace moelora {

struct PlanOptions {
  std::string to;  // layout id, or that of a dialect that is written
  LoadOptions load;
  LayoutWriteOptions layout;
  int threads = 0;             // to compare factors with; 0: all
  std::optional<DType> dtype;  // cast every factor; unset keeps
};

// A conversion worked out, nothing written yet: what the output will hold. Tensors are lazy views
// of the input's files, which `input` keeps open.
struct Conversion {
  LoadedAdapter input;  // as read
  const Layout* to = nullptr;
  const Dialect* dialect = nullptr;  // that it is written in; null: PEFT's
  Adapter adapter;                   // as written: gate and up split or fused for the target
  TensorMap tensors;
  Json config;
  std::vector<std::string> notes;  // assumptions and changes, for people
  std::optional<Changes> changes;  // set when `adapter` was changed for an engine
};

// Throws Error when the input cannot be read or the target layout cannot say what it holds.
Conversion plan_conversion(const std::string& in, const PlanOptions& options);

// The same for an adapter that is read already. Of options.load only `read` matters: where the
// input has no stacked pairs, it says how the output's are to be.
Conversion plan_conversion(LoadedAdapter input, const PlanOptions& options);

// As above with another adapter than the input was read as: what an engine's repairs made of it
// (lib/engine/fit). Its config is the one that is written, its targets as `changes` says.
Conversion plan_conversion(LoadedAdapter input, Adapter fitted, Changes changes,
                           const PlanOptions& options);

// As above for an adapter made in memory: `made` has modules by their in-memory names and experts
// with gate and up apart, as a base model of `spec` has them.
Conversion plan_conversion(Adapter made, const ModelSpec& spec, const PlanOptions& options);

// Looks at a finished conversion before it is published: `written` are its files in the temporary
// folder. What it throws publishes nothing. The one that the tools use is packed_verifier() of
// lib/compare.
struct Verified {
  int64_t factors = 0;       // that were compared
  int64_t same_product = 0;  // pairs of other values, accepted as the same product to 1e-7
};
using Verifier = std::function<Verified(const Conversion& conversion, const AdapterFiles& written)>;

struct WrittenConversion {
  WrittenWeights weights;
  int64_t verified = 0;            // factors compared; 0 without verify
  int64_t same_product = 0;        // Verified::same_product
  std::vector<std::string> notes;  // which files were not copied
  std::string left_behind;         // what OutputFolder::commit says
};

struct WriteFolderOptions {
  OutputOptions output;
  WriteOptions weights;
  Verifier verify = {};  // null: none
  // Called when all is written and before the output appears, with all but `left_behind`. What it
  // throws leaves nothing.
  std::function<void(const WrittenConversion& written)> ready = {};
};

// Writes the output folder: weights, carried files (README, tokenizer, chat template; none of an
// adapter made in memory), conversion.json (per output tensor its sources, whether it is exact, its
// XXH3-128), adapter_config.json last.
WrittenConversion write_conversion(const Conversion& conversion, const std::string& out,
                                   const WriteFolderOptions& options);

}  // namespace moelora
