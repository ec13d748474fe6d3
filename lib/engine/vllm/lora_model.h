#pragma once

#include <deque>
#include <optional>
#include <string>
#include <unordered_map>
#include <vector>

#include "lib/engine/vllm/config.h"
#include "lib/engine/vllm/names.h"
#include "lib/engine/vllm/view.h"

namespace moelora::vllm {

// What becomes of a tensor of the file on one rank.
enum class Use : uint8_t {
  unread,       // the load ended before it
  skipped,      // passed over by name
  remote,       // of an expert that another rank holds
  overwritten,  // another tensor of the same module came later
  loaded,       // in a Lora that no module has taken
  half,         // copied, but its partner is not there
  copied,
  refused,
};

// Where a copied tensor's shape is not the base's.
struct Misfit {
  bool smaller = false;    // the rest of the buffer stays zero
  bool larger = false;     // what lies beyond is cut off
  bool collapsed = false;  // per-expert factors where one is held: expert 0 alone is kept
};

struct TensorState {
  Use use = Use::unread;
  Misfit misfit;
  uint32_t buffer = UINT32_MAX;  // the first it went to
};

// LoRALayerWeights: the factors of one module, or (packed) of a list of them.
struct Lora {
  std::string module;
  bool packed = false;
  std::vector<std::optional<View>> a{1}, b{1};
  double scale = 1;      // what optimize() will multiply lora_b with
  bool dropped = false;  // taken into another one, or refused
};

// The tensors of both factors, appended.
void add_sources(const Lora& lora, std::vector<uint32_t>& out);

// LoRAModel.loras: in the order in which Python's dict holds them.
class LoraModel {
 public:
  Lora* find(const std::string& module);
  Lora& add(std::string module);  // at the end, also where there is one of that name
  void drop(Lora& lora);
  std::deque<Lora>& loras() { return loras_; }

 private:
  std::deque<Lora> loras_;
  std::unordered_map<std::string, Lora*> by_module_;
};

// LoRAModel.from_local_checkpoint after the name gate: the tensors of the file by module.
// Faults: names that the gate did not look at, an embedding of another vocabulary.
struct TensorStep {
  const Server& server;
  const WeightFile& file;
  const std::vector<ParsedName>& names;
  const LoraConfig& config;
  int64_t rank;

  LoraModel run(std::vector<TensorState>& states, std::vector<Fault>& faults) const;
};

}  // namespace moelora::vllm
