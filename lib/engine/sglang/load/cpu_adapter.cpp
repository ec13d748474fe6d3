#include "lib/engine/sglang/load/cpu_adapter.h"

#include <fmt/format.h>

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

void CpuAdapter::raise(const Raise& raise, const std::vector<int32_t>& about) {
  Journal::Entry& entry = journal.entry(raise.cause, Effect::refused);
  if (!entry.refusal) {
    entry.refusal = refusal_of(*this, raise);
    entry.detail = raise.detail;
  }
  entry.add(about);
  for (int32_t source : about) refused[static_cast<size_t>(source)] = true;
}

bool CpuAdapter::raised_before(const Cause* cause, const std::vector<int32_t>& about) {
  for (const Journal::Entry& known : journal.entries())
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
  const std::string& name_of = sources[static_cast<size_t>(source)].name;
  const bool a = contains(name_of, "lora_A") || contains(name_of, "lora_embedding_A");
  const std::string other = a ? replaced(name_of, "_A", "_B") : replaced(name_of, "_B", "_A");
  return find_source(other);
}

void CpuAdapter::lose(const std::vector<int32_t>& about, const Cause* cause,
                      std::string_view detail) {
  for (int32_t source : about) lost[static_cast<size_t>(source)] = {cause, detail};
}

void CpuAdapter::lose(const std::vector<Block>& about, const Cause* cause,
                      std::string_view detail) {
  for (const Block& block : about)
    if (block.source != kZeros) lose(std::vector<int32_t>{block.source}, cause, detail);
}

}  // namespace moelora::sglang
