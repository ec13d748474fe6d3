#pragma once

#include <cstdint>
#include <map>
#include <set>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lib/adapter/config/config_writer.h"
#include "lib/adapter/layout.h"
#include "lib/base/error.h"
#include "lib/engine/engine.h"

namespace moelora {

// What an engine's folder says of adapters that are made fit for it. lib/engine/fit asks this and
// no engine's name.

// What the user allows to be left out where the engine cannot hold it. Nothing is ever dropped
// without one of these.
enum class DropKind : uint8_t {
  router,         // factors of routers and of shared experts' gates
  bias,           // LoRA and module biases
  saved_modules,  // modules_to_save, resized embeddings, trainable tokens
  embeddings,     // factors of embed_tokens and lm_head
  vision,         // factors of vision and audio towers and of their projectors
  text,           // all the others, where towers have some: the other half of a split adapter
  value_head,     // of a reward model or a critic: no server of a language model has it
};
std::string_view drop_name(DropKind kind);   // "saved-modules"
DropKind parse_drop(std::string_view text);  // throws Error that lists them

struct FitOptions {
  EngineChoice engine;
  ServerOptions server;
  std::vector<std::string> server_pairs;  // "KEY=VALUE" as given, for the report
  std::string to;                         // layout id; "" for the engine's own choice
  std::set<DropKind> drop;
  int threads = 0;      // to compare and to measure factors with; 0: all
  bool measure = true;  // how much is lost by what is left out; false where nothing is written
};

// Thrown for what the engine cannot hold and a --drop would leave out.
class DropNeeded : public Error {
 public:
  DropNeeded(std::string where, std::string what, DropKind needed);
  const DropKind kind;
};

// What decides how an adapter is written: the engine as it is started, and the base it serves.
struct FitTarget {
  const EngineChoice& engine;
  const ServerOptions& server;
  const ModelSpec& spec;
  bool shared_outer = false;  // every gate/up A and every down B is one matrix for all experts
};

struct LayoutChoice {
  std::string_view when;  // for people
  bool (*applies)(const FitTarget& target);
  const Layout* layout;
  std::string_view why;
};

namespace fit {
struct FitStep;  // lib/engine/fit/step.h
}

struct EngineFit {
  // The layout that it is given, first match wins; the last row always applies.
  std::span<const LayoutChoice> layouts;
  // How that is written: sides and columns of stacked pairs as its version reads them, and the
  // words for an expert's projections.
  LayoutWriteOptions (*write)(const FitTarget& target);
  TargetStyle targets = TargetStyle::peft;

  // The repairs of what it would refuse or compute wrongly, in this order: later ones rely on what
  // earlier ones made.
  std::span<const fit::FitStep* const> steps;
  // Whether it has a place for such a part; null: for all of them, and for DoRA.
  bool (*holds)(DropKind kind, const FitTarget& target) = nullptr;
  // Where it multiplies up with gate's lora_A, "on gpt-oss"; "" or null: nowhere.
  std::string_view (*misreads_up)(const FitTarget& target) = nullptr;
  // The rank it can use, `rank` or more; null: any.
  int64_t (*served_rank)(const FitTarget& target, int64_t rank) = nullptr;
  // What --max-lora-rank may be, ascending, and what it is when nothing is said; empty: any.
  std::span<const int64_t> legal_ranks = {};
  int64_t default_rank = 0;
  // Modules (and experts' stems) that it finds by the hub's names alone, by those that a layout
  // with transformers' names would write; null: none.
  std::map<std::string, std::string> (*hub_names)(const FitTarget& target) = nullptr;
  // What of a conversion's options would spare this event; empty where none is known. Or null.
  Hint (*advice)(const PlanEvent& event) = nullptr;
};

// The --max-lora-rank to start the engine with for this rank: the least that is legal and not below
// the default; the rank itself beyond them.
int64_t max_rank_for(const EngineFit& fit, int64_t rank);

const LayoutChoice& choose_layout(const FitTarget& target);

}  // namespace moelora
