#include "lib/engine/sglang/load/cpu_adapter.h"

#include <fmt/core.h>

#include <algorithm>
#include <utility>

#include "lib/engine/sglang/names.h"

namespace moelora::sglang {
namespace {

// What _load_lora_adapter() catches; at start-up it is raised again in other words.
bool is_wrapped(std::string_view stage) {
  return stage == stage::kConfig || stage == stage::kValidate || stage == stage::kRead;
}

Refusal refusal_of(const CpuAdapter& adapter, const CpuAdapter::Raise& raise) {
  Refusal out{std::string(raise.stage), std::string(raise.type), raise.text, raise.first_use};
  if (adapter.at_start && is_wrapped(raise.stage)) {
    out.type = "RuntimeError";
    out.text = fmt::format("Failed to load LoRA adapter {}: {}", in_text(adapter.name), raise.text);
  }
  return out;
}

}  // namespace

void EventLog::add(const Cause* cause, Effect effect, std::string detail,
                   const std::vector<int32_t>& about, std::optional<Refusal> refusal) {
  auto event = std::find_if(events_.begin(), events_.end(), [&](const Event& known) {
    return known.cause == cause && known.effect == effect;
  });
  if (event == events_.end())
    event = events_.insert(event, {cause, effect, std::move(detail), std::move(refusal), {}});
  event->sources.insert(event->sources.end(), about.begin(), about.end());
}

const Refusal* EventLog::first_refusal() const {
  for (const Event& event : events_)
    if (event.refusal) return &*event.refusal;
  return nullptr;
}

std::vector<PlanEvent> EventLog::plan_events(const std::vector<Source>& sources) const {
  std::vector<PlanEvent> out;
  for (const Event& event : events_) {
    NameSet names;
    for (int32_t source : event.sources) names.insert(sources[static_cast<size_t>(source)].name);
    out.push_back(
        {event.cause, event.effect, {names.begin(), names.end()}, event.detail, event.refusal});
  }
  return out;
}

void CpuAdapter::raise(const Raise& raise, const std::vector<int32_t>& about) {
  outcome.events.add(raise.cause, Effect::refused, raise.detail, about, refusal_of(*this, raise));
  for (int32_t source : about) refuse(source);
}

bool CpuAdapter::raised_before(const Cause* cause, const std::vector<int32_t>& about) {
  for (const EventLog::Event& known : outcome.events.events())
    if (known.cause == cause && known.refusal) {
      raise({cause, "", "", "", ""}, about);
      return true;
    }
  return false;
}

int32_t CpuAdapter::find_source(const std::string& source) const {
  if (by_name_.empty())
    for (size_t i = 0; i < sources.size(); ++i) by_name_[sources[i].name] = static_cast<int32_t>(i);
  const auto at = by_name_.find(source);
  return at == by_name_.end() ? -1 : at->second;
}

int32_t CpuAdapter::partner_of(int32_t source) const {
  const std::string& name_of = this->source(source).name;
  const bool a = contains(name_of, "lora_A") || contains(name_of, "lora_embedding_A");
  const std::string other = a ? replaced(name_of, "_A", "_B") : replaced(name_of, "_B", "_A");
  return find_source(other);
}

void CpuAdapter::lose(const std::vector<int32_t>& about, const Cause* cause,
                      std::string_view detail) {
  for (int32_t source : about) outcome.lost[static_cast<size_t>(source)] = {cause, detail};
}

bool ends_the_start(const CpuAdapter& adapter) {
  const auto& events = adapter.outcome.events.events();
  return std::any_of(events.begin(), events.end(), [](const EventLog::Event& event) {
    if (!event.refusal) return false;
    const std::string& at = event.refusal->stage;
    return at == stage::kShapes || at == stage::kDetect || at == stage::kWrap ||
           at == stage::kPool || at == stage::kHandOver;
  });
}

}  // namespace moelora::sglang
