#pragma once

#include <optional>
#include <set>
#include <string>
#include <vector>

#include "lib/check/rule_context.h"
#include "lib/compare/meant_deltas.h"
#include "lib/compare/served_difference.h"
#include "lib/model/base_model.h"

namespace moelora {

// What an adapter means: as it was read; where it does not fit the base model and could not be
// read with it, by its own names and shapes, if it has the base's number of experts. nullopt, and
// why, where neither says.
struct Meaning {
  Adapter adapter;
  Deltas deltas;
};
std::optional<Meaning> meaning_of(const Subject& subject, const ModelSpec& spec, std::string& why);

// Whether a chosen server gets as far as computing: it has a plan, and that refuses nothing.
bool is_served(const EngineRun& run, size_t adapter);

// Whether it is known what an engine holds and what its kernels make of it.
inline bool has_known_kernels(const Engine& engine) {
  return engine.fill != nullptr && engine.blocks != nullptr;
}

// What all ranks of a server compute of an adapter that it serves. REQUIRES an engine with known
// buffers. Throws Error.
std::vector<ServedBlock> served_blocks(const Subject& subject, const BaseModel& base,
                                       const EngineRun& run);

// Deltas that a server computes wrongly for one reason.
struct WrongDeltas {
  enum class Kind : uint8_t {
    off,         // by `least` to `most` of the delta's norm
    lost,        // nothing is added
    untrained,   // something is added that the adapter does not mean
    not_finite,  // the server's values are infinite or not numbers
  };
  Kind kind = Kind::off;
  bool experts = false;            // of routed experts
  std::vector<const Rule*> rules;  // by name: those that explain events of the plan of them
  std::string_view defect;         // of the server's kernel; "" for none
  double least = 0, most = 0;
  std::vector<DeltaKey> keys;
  std::set<std::string> tensors;  // of the file
};

// The wrong ones of `deltas`, by reason.
std::vector<WrongDeltas> wrong_by_reason(const std::vector<ServedDelta>& deltas,
                                         const Deltas& meant, const Subject& subject,
                                         const AdapterPlan& plan);

// "gate_proj and up_proj of layers 0-3, experts 0-127", "lm_head".
std::string places_text(const std::vector<DeltaKey>& keys);

}  // namespace moelora
