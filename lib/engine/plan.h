#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lib/base/tensor.h"
#include "lib/engine/cause.h"

namespace moelora {

// What a server raises, in its own words.
struct Refusal {
  std::string stage;       // the server's step: "read and normalise", "pool init", "copy" ...
  std::string type;        // the exception's class: "KeyError"
  std::string text;        // str(exception); "" where the server says nothing
  bool first_use = false;  // the server starts, and the first request dies
};

// "KeyError: 'v_proj'"; the type alone where the text is empty.
std::string refusal_text(const Refusal& refusal);

// What becomes of a tensor.
enum class Fate : uint8_t {
  used,       // whole, and where it belongs
  cut,        // what exceeds the buffer is dropped
  partial,    // smaller than the buffer: the rest stays zero
  misplaced,  // all or some of it lands where other values belong
  unused,     // read and dropped
  refused,    // the load ends at or before it
};
std::string_view fate_name(Fate fate);

enum class Effect : uint8_t { refused, unused, cut, partial, misplaced, wrong_scale, wrong_values };
std::string_view effect_name(Effect effect);  // "wrong-scale"

// One thing that the server does otherwise than the adapter means, or why it does not load it.
struct PlanEvent {
  const Cause* cause = nullptr;
  Effect effect;
  std::vector<std::string> tensors;  // as the files spell them, sorted; empty: the whole adapter
  std::string detail;  // what was found and what the server expects, for the finding's message
  std::optional<Refusal> refusal;  // with Effect::refused
};

struct TensorFate {
  std::string tensor, file;
  Fate fate;
  std::string buffer;  // "layers.0.qkv_proj.A", "" when unused
};

// The load of one adapter. `events` go on after the first refusal where more is known; the
// server itself says what first_refusal() says.
struct AdapterPlan {
  std::vector<PlanEvent> events;  // in the order in which the server meets them
  std::vector<TensorFate> fates;  // of every tensor of every file the server reads

  const PlanEvent* first_refusal() const;  // null: served
};

// One buffer a server allocates for adapters on one device.
struct MemoryRow {
  std::string buffer;  // "gate_up_proj_moe.A"
  Shape shape;         // of one slot in one layer
  int64_t layers = 0;  // how many layers hold one (1 for embeddings)
  uint64_t bytes = 0;  // of one slot, all layers
};

struct MemoryPlan {
  std::vector<MemoryRow> rows;
  int64_t slots = 0;
  std::string dtype;  // "bf16"

  // A buffer of one layer: buffers of one name and shape are a row.
  void add(std::string buffer, const Shape& shape);
  uint64_t slot_bytes() const;
  uint64_t total_bytes() const { return slot_bytes() * static_cast<uint64_t>(slots); }
};

// A whole deployment: adapters given together at start-up.
struct ServerPlan {
  std::vector<PlanEvent> server;  // what concerns no single adapter: the class, the options
  std::vector<AdapterPlan> adapters;
  MemoryPlan memory;
  std::vector<std::string> notes;  // what this plan does not cover, for people
  // The server's flags that the plan assumes, as far as LoRA depends on them: "--enable-lora
  // --max-lora-rank 8"; "" for what is no server.
  std::string launch;
  // Why this plan proves nothing of the base's class ("KimiK25ForConditionalGeneration is no class
  // that is known here"); "" where it does. NUM003 reports it.
  std::string not_known;
};

}  // namespace moelora
