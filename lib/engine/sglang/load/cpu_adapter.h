#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "lib/engine/plan.h"
#include "lib/engine/python_text.h"
#include "lib/engine/sglang/load/layer_weights.h"
#include "lib/io/json.h"

namespace moelora::sglang {

// A tensor of a file the server reads.
struct Source {
  std::string name;   // as the file spells it
  uint32_t file = 0;  // index in the adapter's list of files
  Shape shape;
};

// What happens to one adapter, in the order in which the server meets it. What has the same cause
// and effect is one event: it quotes the first refusal and names the tensors of all of them.
class EventLog {
 public:
  struct Event {
    const Cause* cause = nullptr;
    Effect effect;
    std::string detail;
    std::optional<Refusal> refusal;
    std::vector<int32_t> sources;
  };

  // Adds `about` to the event of this cause and effect, which is made when there is none. The
  // detail and the refusal of the first call stay.
  void add(const Cause* cause, Effect effect, std::string detail,
           const std::vector<int32_t>& about = {}, std::optional<Refusal> refusal = std::nullopt);

  const std::vector<Event>& events() const { return events_; }
  const Refusal* first_refusal() const;  // null for none

  // As a plan shows it: names of the tensors, sorted, each once.
  std::vector<PlanEvent> plan_events(const std::vector<Source>& sources) const;

 private:
  std::vector<Event> events_;
};

// An adapter in the server's memory (LoRAConfig and LoRAAdapter), and what happened to it on the
// way. It goes on after a refusal where the server would stop, so that a plan can say more; `alive`
// is false where nothing more can be said.
struct CpuAdapter {
  std::string name;       // "my-adapter"
  bool at_start = false;  // given with --lora-paths: the server wraps what load raises
  bool alive = true;

  int64_t r = 0;
  double alpha = 0;
  Json config;
  bool all_targets = false;  // target_modules is "all" or "all-linear"
  NameSet targets;           // normalised

  std::vector<std::string> files;
  std::vector<Source> sources;
  std::vector<LayerWeights> layers;
  LayerWeights embeddings;  // embed_tokens and lm_head

  struct Loss {
    const Cause* cause = nullptr;
    std::string_view detail;
  };
  struct Outcome {
    EventLog events;
    std::vector<bool> refused;  // by source: an exception is about it
    std::vector<Loss> lost;     // by source: why it is dropped; no cause where it is not
  };
  Outcome outcome;

  double scale() const { return alpha / static_cast<double>(r); }
  bool is_refused(int32_t source) const { return outcome.refused[static_cast<size_t>(source)]; }
  const Source& source(int32_t id) const { return sources[static_cast<size_t>(id)]; }

  // An exception of the server, about `about` (empty: the adapter as a whole).
  struct Raise {
    const Cause* cause = nullptr;
    std::string_view stage;
    std::string_view type;
    std::string text;
    std::string detail;
    bool first_use = false;
  };
  void raise(const Raise& raise, const std::vector<int32_t>& about = {});
  // Whether an exception of this cause was raised before; then `about` is added to it.
  bool raised_before(const Cause* cause, const std::vector<int32_t>& about);

  // The source of this name in the files (the last of them), -1 for none.
  int32_t find_source(const std::string& source) const;
  // The other factor of a pair: lora_B of lora_A and the reverse; -1 for none.
  int32_t partner_of(int32_t source) const;

  // Something that is served otherwise than the adapter means.
  void add_event(const Cause* cause, Effect effect, std::string detail,
                 const std::vector<int32_t>& about = {}) {
    outcome.events.add(cause, effect, std::move(detail), about);
  }
  void refuse(int32_t source) { outcome.refused[static_cast<size_t>(source)] = true; }

  // The server drops these without a word.
  void lose(const std::vector<int32_t>& about, const Cause* cause, std::string_view detail);

 private:
  mutable std::unordered_map<std::string_view, int32_t> by_name_;  // made when asked for
};

namespace stage {
constexpr std::string_view kConfig = "read adapter_config.json";
constexpr std::string_view kValidate = "validate config";
constexpr std::string_view kRead = "read and normalise";
constexpr std::string_view kShapes = "shapes (target modules, rank)";
constexpr std::string_view kDetect = "detect shared outer";
constexpr std::string_view kWrap = "wrap modules";
constexpr std::string_view kPool = "pool init";
constexpr std::string_view kHandOver = "hand buffers to layers";
constexpr std::string_view kLoad = "load to buffer";
}  // namespace stage

// Whether an exception ends the start of the server for all adapters: at a step that is about the
// pool as a whole, so that no adapter can be held against it.
bool ends_the_start(const CpuAdapter& adapter);

}  // namespace moelora::sglang
