#include "lib/engine/sglang/options.h"

namespace moelora::sglang {
namespace {

// "q_proj,k_proj" or "q_proj k_proj".
NameSet names_in(std::string_view text) {
  NameSet out;
  while (!text.empty()) {
    const size_t end = text.find_first_of(", ");
    if (end != 0) out.emplace(text.substr(0, end));
    text = end == std::string_view::npos ? "" : text.substr(end + 1);
  }
  return out;
}

}  // namespace

Launch launch_of(const ServerOptions& options) {
  Launch out;
  out.tp = options.tp;
  out.ep = options.ep;
  out.slots = options.max_loras.value_or(out.slots);
  out.max_lora_rank = options.max_lora_rank;
  const NameSet targets = names_in(options.text("lora-target-modules"));
  if (!targets.empty()) out.target_modules = targets;
  out.shared_outer = options.flag("experts-shared-outer-loras");
  out.strict = options.on("lora-strict-loading");
  return out;
}

bool starts_empty(const ServerOptions& options) { return options.on("empty-start"); }

}  // namespace moelora::sglang
