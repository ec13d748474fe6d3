// Module names of Megatron-Core with PEFT's factors, as ms-swift's own checkpoints have them: the
// factors of the routed experts are weight0, weight1, ... of one module.

#include <fmt/core.h>

#include <algorithm>
#include <optional>
#include <string>

#include "lib/adapter/dialect.h"
#include "lib/adapter/foreign/dialect_tools.h"
#include "lib/adapter/foreign/megatron_modules.h"
#include "lib/adapter/names/text_names.h"
#include "lib/adapter/tensor_name.h"
#include "lib/base/dotted_path.h"

namespace moelora {
namespace {

bool owns(std::string_view name) {
  if (!has_any(name, {".lora_A", ".lora_B"})) return false;
  if (is_in_vision(name)) return false;
  if (names_megatron(name) && has_any(name, {".linear_", ".router."})) return true;
  return without_peft_prefix(name).starts_with("output_layer.lora_");
}

// MODULE.lora_A[.ADAPTER].weight, or .weight7 of an expert.
struct Factor {
  std::string_view module;
  Side side;
  std::optional<int64_t> expert = {};
};

std::optional<Factor> parse(std::string_view name) {
  const size_t at = std::max(name.rfind(".lora_A") + 1, name.rfind(".lora_B") + 1);
  if (at == 0) return std::nullopt;
  Factor out{name.substr(0, at - 1), name[at + 5] == 'A' ? Side::A : Side::B};
  std::string_view last = leaf_of(name.substr(at));
  constexpr std::string_view kWeight = "weight";
  if (!last.starts_with(kWeight)) return std::nullopt;
  last.remove_prefix(kWeight.size());
  if (last.empty()) return out;
  out.expert = parse_index(last);
  return out.expert ? std::optional(out) : std::nullopt;
}

void read(const ForeignAdapter& in, Translation& out) {
  std::optional<MegatronModules> modules;
  MegatronExperts count;
  for (const auto& [name, tensor] : in.tensors) {
    if (!owns(name) && !names_megatron(name)) {
      out.tensors.emplace(name, tensor);
      continue;
    }
    if (in.spec == nullptr)
      throw needs_base(name,
                       "is of a module of Megatron-Core, which joins several of the base "
                       "model's by their heads and widths");
    if (!modules) modules.emplace(*in.spec, GateRows::by_head);
    if (name.ends_with("._extra_state")) continue;  // of Transformer Engine, no weight
    std::optional<Factor> factor = parse(name);
    std::string path(factor ? megatron_path(factor->module) : std::string_view());
    if (path.empty())
      throw Error(name, "is no factor of a module of Megatron-Core's decoder",
                  std::string(kMegatronExport));
    if (const auto local = take_local_expert(path)) factor->expert = local;
    const MegatronModule& module = modules->find(name, path);
    if (factor->expert.has_value() != (module.experts > 0))
      throw Error(name,
                  factor->expert ? "has a number, and is of no routed expert"
                                 : "is of the routed experts, and does not say of which",
                  std::string(kMegatronExport));
    if (factor->expert) count.add(module, name, *factor->expert);
    put_megatron(out, name, module, factor->expert, factor->side, tensor);
  }
  count.check();
}

}  // namespace

const Dialect dialects::megatron_core = {
    .id = "megatron-core",
    .whose = "Megatron-Core",
    .names = "decoder.layers.N, linear_qkv, linear_proj, linear_fc1, linear_fc2",
    .shapes = "B of linear_qkv [q.., k, v by key-value head], of linear_fc1 [gate; up]",
    .sources = "mcore-bridge f020e479 and 05aa8e98 (bridge/gpt_bridge.py, tuners/lora.py)",
    .advice = "",
    .owns = owns,
    .read = read,
};

}  // namespace moelora
