#include "lib/engine/vllm/plan/plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "lib/engine/vllm/plan/silent.h"

namespace moelora::vllm {
namespace {

// A tensor is what the rank says of it that did most with it; a refusal counts over all.
int weight(Use use) {
  switch (use) {
    case Use::remote:
      return 0;
    case Use::unread:
      return 1;
    case Use::skipped:
      return 2;
    case Use::loaded:
      return 3;
    case Use::overwritten:
      return 4;
    case Use::half:
      return 5;
    case Use::copied:
      return 6;
    case Use::refused:
      return 7;
  }
  return 0;
}

// The loads of all ranks as one.
class AllRanks {
 public:
  void add(RankLoad load) {
    for (Fault& fault : load.faults) add_fault(std::move(fault));
    if (first_) {
      states_ = std::move(load.states);
      buffers_ = std::move(load.buffers);
      first_ = false;
      return;
    }
    for (size_t i = 0; i < states_.size(); ++i) merge(states_[i], load.states[i], load.buffers);
  }

  std::vector<Fault> faults;
  const std::vector<TensorState>& states() const { return states_; }
  std::string buffer(const TensorState& state) const {
    return state.buffer < buffers_.size() ? buffers_[state.buffer].name : "";
  }

 private:
  void add_fault(Fault fault) {
    const auto same = std::find_if(faults.begin(), faults.end(), [&](const Fault& other) {
      return other.cause == fault.cause && other.refusal->stage == fault.refusal->stage &&
             other.refusal->type == fault.refusal->type;
    });
    if (same == faults.end())
      faults.push_back(std::move(fault));
    else
      same->tensors.insert(same->tensors.end(), fault.tensors.begin(), fault.tensors.end());
  }

  void merge(TensorState& all, const TensorState& mine, const std::vector<Buffer>& buffers) {
    all.misfit |= mine.misfit;
    if (weight(mine.use) <= weight(all.use)) return;
    all.use = mine.use;
    if (mine.buffer >= buffers.size()) return;
    all.buffer = static_cast<uint32_t>(buffers_.size());
    buffers_.push_back(buffers[mine.buffer]);
  }

  bool first_ = true;
  std::vector<TensorState> states_;
  std::vector<Buffer> buffers_;
};

Fate fate_of(const TensorState& state) {
  switch (state.use) {
    case Use::copied:
      break;
    case Use::refused:
    case Use::unread:
      return Fate::refused;
    default:
      return Fate::unused;
  }
  if (state.misfit.smaller && state.misfit.larger) return Fate::misplaced;
  if (state.misfit.larger || state.misfit.collapsed) return Fate::cut;
  return state.misfit.smaller ? Fate::partial : Fate::used;
}

PlanEvent event_of(const WeightFile* file, Fault fault) {
  PlanEvent out;
  out.cause = fault.cause;
  out.effect = fault.effect;
  out.detail = std::move(fault.detail);
  out.refusal = std::move(fault.refusal);
  for (uint32_t tensor : fault.tensors) out.tensors.push_back(file->tensors[tensor].name);
  std::sort(out.tensors.begin(), out.tensors.end());
  out.tensors.erase(std::unique(out.tensors.begin(), out.tensors.end()), out.tensors.end());
  return out;
}

void mark_misplaced(const std::vector<Fault>& faults, std::vector<TensorFate>& fates) {
  for (const Fault& fault : faults)
    if (fault.effect == Effect::misplaced)
      for (uint32_t tensor : fault.tensors) fates[tensor].fate = Fate::misplaced;
}

}  // namespace

AdapterPlan plan_adapter(const Server& server, const ServedAdapter& served) {
  const Adapter adapter = open_adapter(server, served);
  AllRanks all;
  if (auto fault = start_fault(server.settings)) all.faults.push_back(std::move(*fault));
  const int64_t ranks = adapter.faults.empty() ? server.settings.tp : 1;  // else all raise the same
  for (int64_t rank = 0; rank < ranks; ++rank) all.add(load_on_rank(server, adapter, rank));
  AdapterPlan out;
  const bool served_at_all = all.faults.empty();
  for (size_t i = 0; i < all.states().size(); ++i) {
    const TensorState& state = all.states()[i];
    out.fates.push_back({adapter.file->tensors[i].name, adapter.file->name,
                         served_at_all ? fate_of(state) : Fate::refused,
                         served_at_all ? all.buffer(state) : ""});
  }
  std::vector<Fault> silent;
  if (adapter.faults.empty() || adapter.faults.front().refusal->stage == "validate") {
    silent = silent_faults(server, adapter, all.states());
    for (Fault& fault : scale_faults(server, adapter, all.states()))
      silent.push_back(std::move(fault));
  }
  if (served_at_all) mark_misplaced(silent, out.fates);
  for (auto* faults : {&all.faults, &silent})
    for (Fault& fault : *faults) out.events.push_back(event_of(adapter.file, std::move(fault)));
  return out;
}

}  // namespace moelora::vllm
