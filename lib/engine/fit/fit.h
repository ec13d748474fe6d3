#pragma once

#include <set>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "lib/adapter/convert.h"
#include "lib/engine/engine.h"

namespace moelora {

// An adapter made fit for one engine: the layout it serves for this base, and every repair of what
// it would refuse or compute wrongly. The deltas stay what they were: exactly where only zeros,
// names, order and powers of two are in play, else within one rounding of lora_B.

// What the user allows to be left out where the engine cannot hold it. Nothing is ever dropped
// without one of these.
enum class DropKind : uint8_t {
  router,         // factors of routers and of shared experts' gates
  bias,           // LoRA and module biases
  saved_modules,  // modules_to_save, resized embeddings, trainable tokens
  embeddings,     // factors of embed_tokens and lm_head
};
std::string_view drop_name(DropKind kind);   // "saved-modules"
DropKind parse_drop(std::string_view text);  // throws Error that lists them

struct FitOptions {
  EngineChoice engine;
  ServerOptions server;
  std::vector<std::string> server_pairs;  // "KEY=VALUE" as given, for the report
  std::string to;                         // layout id; "" for the engine's own choice
  std::set<DropKind> drop;
  int threads = 0;  // to compare and to measure factors with; 0: all
};

struct FittedAdapter {
  Adapter meant;  // as read, without what was dropped, under the names the engine reads
  Adapter adapter;
  Fitting fitting;
  const Layout* layout = nullptr;  // to write it in
  LayoutWriteOptions write;        // of that layout
};

// REQUIRES a base model: without one, or for what the engine cannot hold and --drop does not name,
// throws Error.
FittedAdapter fit_adapter(const LoadedAdapter& input, const FitOptions& options);

// The whole conversion of an input: fitted, planned in the chosen layout. `convert.to` and
// `convert.layout` are set by it.
struct FittedConversion {
  Adapter meant;
  Conversion conversion;  // its `adapter` is the fitted one
};
FittedConversion plan_fitted(LoadedAdapter input, const FitOptions& options,
                             ConvertOptions convert);

// The smallest of vLLM's legal --max-lora-rank that holds this rank; the rank itself beyond them.
int64_t vllm_max_rank(int64_t rank);

// Rows of the README's tables.
struct RepairRow {
  std::string_view name, engines, summary;
};
std::vector<RepairRow> repair_rows();

}  // namespace moelora
