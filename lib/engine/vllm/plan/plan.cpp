#include "lib/engine/vllm/plan/plan.h"

#include <fmt/format.h>

#include <algorithm>

#include "lib/engine/vllm/plan/silent.h"

namespace moelora::vllm {
namespace {

// The loads of all ranks as one.
class AllRanks {
 public:
  void add(RankLoad load) {
    for (LoadEvent& event : load.events) add_event(std::move(event));
    if (first_) {
      states_ = std::move(load.states);
      buffers_ = std::move(load.buffers);
      first_ = false;
      return;
    }
    for (size_t i = 0; i < states_.size(); ++i) merge(states_[i], load.states[i], load.buffers);
  }

  std::vector<LoadEvent> events;
  const std::vector<TensorState>& states() const { return states_; }
  std::string buffer(const TensorState& state) const {
    return state.buffer < buffers_.size() ? buffers_[state.buffer].name : "";
  }

 private:
  void add_event(LoadEvent event) {
    const auto same = std::find_if(events.begin(), events.end(), [&](const LoadEvent& other) {
      return other.cause == event.cause && other.refusal->stage == event.refusal->stage &&
             other.refusal->type == event.refusal->type;
    });
    if (same == events.end())
      events.push_back(std::move(event));
    else
      same->tensors.insert(same->tensors.end(), event.tensors.begin(), event.tensors.end());
  }

  void merge(TensorState& all, const TensorState& mine, const std::vector<Buffer>& buffers) {
    all.misfit |= mine.misfit;
    if (mine.use <= all.use) return;
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

PlanEvent event_of(const WeightFile* file, LoadEvent event) {
  PlanEvent out;
  out.cause = event.cause;
  out.effect = event.effect;
  out.detail = std::move(event.detail);
  out.refusal = std::move(event.refusal);
  for (uint32_t tensor : event.tensors) out.tensors.push_back(file->tensors[tensor].name);
  std::sort(out.tensors.begin(), out.tensors.end());
  out.tensors.erase(std::unique(out.tensors.begin(), out.tensors.end()), out.tensors.end());
  return out;
}

void mark_misplaced(const std::vector<LoadEvent>& events, std::vector<TensorFate>& fates) {
  for (const LoadEvent& event : events)
    if (event.effect == Effect::misplaced)
      for (uint32_t tensor : event.tensors) fates[tensor].fate = Fate::misplaced;
}

}  // namespace

AdapterPlan plan_adapter(const Server& server, const ServedAdapter& served) {
  const Adapter adapter = open_adapter(server, served);
  AllRanks all;
  if (auto event = start_event(server.settings)) all.events.push_back(std::move(*event));
  const int64_t ranks = adapter.events.empty() ? server.settings.tp : 1;  // else all raise the same
  for (int64_t rank = 0; rank < ranks; ++rank) all.add(load_on_rank(server, adapter, rank));
  AdapterPlan out;
  const bool served_at_all = all.events.empty();
  for (size_t i = 0; i < all.states().size(); ++i) {
    const TensorState& state = all.states()[i];
    out.fates.push_back({adapter.file->tensors[i].name, adapter.file->name,
                         served_at_all ? fate_of(state) : Fate::refused,
                         served_at_all ? all.buffer(state) : ""});
  }
  std::vector<LoadEvent> silent;
  if (adapter.events.empty() || adapter.events.front().refusal->stage == "validate") {
    silent = silent_events(server, adapter, all.states());
    for (LoadEvent& event : scale_events(server, adapter, all.states()))
      silent.push_back(std::move(event));
  }
  if (served_at_all) mark_misplaced(silent, out.fates);
  for (auto* events : {&all.events, &silent})
    for (LoadEvent& event : *events) out.events.push_back(event_of(adapter.file, std::move(event)));
  return out;
}

}  // namespace moelora::vllm
