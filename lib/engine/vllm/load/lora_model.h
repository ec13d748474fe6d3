#pragma once

#include <deque>
#include <optional>
#include <utility>
#include <vector>

#include "lib/engine/vllm/load/adapter.h"
#include "lib/engine/vllm/load/event.h"
#include "lib/engine/vllm/load/view.h"
#include "lib/engine/vllm/server/server.h"

namespace moelora::vllm {

// What becomes of a tensor of the file on one rank. Of several ranks the one that did most with it
// counts: the order here.
enum class Use : uint8_t {
  remote,       // of an expert that another rank holds
  unread,       // the load ended before it
  skipped,      // passed over by name
  loaded,       // in a Lora that no module has taken
  overwritten,  // another tensor of the same module came later
  half,         // copied, but its partner is not there
  copied,
  refused,
};

// Where a copied tensor's shape is not the base's.
struct Misfit {
  bool smaller = false;    // the rest of the buffer stays zero
  bool larger = false;     // what lies beyond is cut off
  bool collapsed = false;  // per-expert factors where one is held: expert 0 alone is kept

  Misfit& operator|=(const Misfit& other) {
    smaller |= other.smaller;
    larger |= other.larger;
    collapsed |= other.collapsed;
    return *this;
  }
};

struct TensorState {
  Use use = Use::unread;
  Misfit misfit;
  uint32_t buffer = UINT32_MAX;  // the first it went to
};

// LoRALayerWeights of one module: two tensors of the file, or (packed) lists of what became of
// some.
struct Lora {
  uint32_t module = kNoModule;
  bool packed = false;
  bool dropped = false;  // taken into another one, or refused
  // Where not packed; kNoTensor where the file has only one of the two.
  uint32_t a = kNoTensor, b = kNoTensor;
  double scale = 1;         // what optimize() will multiply lora_b with
  double expert_scale = 1;  // what pack_moe will, of a numbered or shared-outer expert
  double b_scale = 1;       // what it has
  // Where packed; nullopt for a child that is not there.
  std::vector<std::optional<View>> as, bs;

  static constexpr uint32_t kNoTensor = UINT32_MAX;
  void pack(std::vector<std::optional<View>> new_as, std::vector<std::optional<View>> new_bs) {
    packed = true;
    a = b = kNoTensor;
    as = std::move(new_as);
    bs = std::move(new_bs);
  }
  bool has_a() const { return a != kNoTensor; }
  bool has_b() const { return b != kNoTensor; }
};

// LoRAModel.loras: in the order in which Python's dict holds them.
class LoraModel {
 public:
  explicit LoraModel(const Adapter& adapter)
      : file_(*adapter.file), by_module_(adapter.modules.size(), nullptr) {}

  Lora* find(uint32_t module) { return module == kNoModule ? nullptr : by_module_[module]; }
  Lora& add(uint32_t module);  // at the end, also where there is one of this module
  void drop(Lora& lora);
  std::deque<Lora>& loras() { return loras_; }

  // The factors of an unpacked Lora. REQUIRE that it has them.
  View a(const Lora& lora) const { return View::of(lora.a, file_.tensors[lora.a].shape); }
  View b(const Lora& lora) const;

 private:
  const WeightFile& file_;
  std::deque<Lora> loras_;
  std::vector<Lora*> by_module_;
};

// The tensors of both factors, appended.
void add_sources(const Lora& lora, std::vector<uint32_t>& out);

// One rank's load of an adapter while it runs: what its steps read and change.
struct Loading {
  const Server& server;
  const Adapter& adapter;  // REQUIRES a file
  int64_t rank;
  LoraModel model;
  std::vector<TensorState> states;  // of file->tensors
  std::vector<LoadEvent> events;    // in the server's order: the first is what it raises
};

// LoRAModel.from_local_checkpoint after the name gate: the tensors of the file by module. Events:
// names that the gate did not look at, an embedding of another vocabulary.
void load_tensors(Loading& load);

// LoRAModelManager._create_merged_loras_inplace: children become the entries of their module,
// scales go into lora_B, stacked experts are cut into experts (stages pack, stack3d, convert3d).
// A module that is refused is taken out, so that what comes after it is looked at too.
void pack(Loading& load);  // pack.cpp

}  // namespace moelora::vllm
