#include "lib/engine/sglang/load/diagnosis.h"

#include <fmt/core.h>

#include <algorithm>

#include "lib/engine/sglang/names.h"

namespace moelora::sglang {
namespace {

bool is_one_of(std::string_view word, std::span<const std::string_view> words) {
  return std::find(words.begin(), words.end(), word) != words.end();
}

bool has_pattern(const CpuAdapter& adapter, std::string_view key) {
  const Json* pattern = adapter.config.find(key);
  return pattern != nullptr && !pattern->members().empty();
}

// The rank of a factor as its own shape says; -1 for what is not a factor.
int64_t rank_of_factor(const Source& source) {
  if (source.shape.size() < 2 || !is_factor(source.name)) return -1;
  const bool a = contains(source.name, "lora_A") || contains(source.name, "lora_embedding_A");
  return source.shape[source.shape.size() - (a ? 2 : 1)];
}

bool belongs_to_tower(std::string_view name) {
  constexpr std::string_view kTowers[] = {"vision", "visual", "audio", "mtp", "nextn"};
  return std::any_of(std::begin(kTowers), std::end(kTowers),
                     [&](std::string_view tower) { return contains(name, tower); });
}

Diagnosis rank_cause(const CpuAdapter& adapter, const Source& source, int64_t rank) {
  if (has_pattern(adapter, "rank_pattern"))
    return {&cause::patterns_ignored,
            fmt::format("rank_pattern gives {} rank {}; the server holds every module at r = {}",
                        in_text(module_of(source.name)), rank, adapter.r)};
  return {&cause::rank_mismatch,
          fmt::format("rank {} in the tensor, r = {} in the config", rank, adapter.r)};
}

// Whether the partner that should have taken `name` up lacks its other factor only.
bool partner_is_half(const CpuAdapter& adapter, const std::string& name, std::string_view leaf,
                     std::string_view partner) {
  const std::string other = replaced(name, leaf, partner);
  return adapter.find_source(replaced(other, "lora_B", "lora_A")) >= 0 ||
         adapter.find_source(replaced(other, "lora_A", "lora_B")) >= 0;
}

constexpr std::string_view kRouters[] = {"router", "gate", "shared_expert_gate", "wg", "gating"};
constexpr std::string_view kGdn[] = {"in_proj_qkv", "in_proj_z",  "in_proj_a",
                                     "in_proj_b",   "in_proj_ba", "in_proj_qkvz"};

}  // namespace

Diagnosis cause_of_stack(const CpuAdapter& adapter, std::span<const Staged* const> parts) {
  for (const Staged* part : parts)
    for (int32_t id : part->sources()) {
      const Source& source = adapter.source(id);
      if (!is_factor(source.name)) return {&cause::extra_becomes_b, "is not a low-rank factor"};
      const int64_t rank = rank_of_factor(source);
      if (rank >= 0 && rank != adapter.r && !part->is_a()) return rank_cause(adapter, source, rank);
    }
  const Staged &first = *parts[0], &second = *parts[1];
  if (first.rank() == 3 && second.rank() == 3 && first.shape[0] != second.shape[0])
    return {&cause::half_shared,
            fmt::format("leading extents {} and {} of parts that the server stacks", first.shape[0],
                        second.shape[0])};
  return {&cause::shape_mismatch,
          fmt::format("{} and {}, which the server stacks, do not fit together",
                      to_string(first.shape), to_string(second.shape))};
}

Diagnosis cause_of_unmatched(const CpuAdapter& adapter, const Staged& entry, const NameSet& targets,
                             const Features& features) {
  const std::string_view leaf = module_of(entry.name);
  if (is_one_of(leaf, kRouters))
    return {&cause::router_target, "a factor of the router, which SGLang cannot serve"};
  if (!is_factor(entry.name))
    return {&cause::extra_becomes_b,
            "is not a low-rank factor: SGLang takes it for the B of its module"};
  if (contains(entry.name, "experts.base_layer.") || leaf == "experts")
    return {&cause::stacked_peft_experts, "a stacked expert parameter as PEFT saves it"};
  if (leaf == "k_proj" || leaf == "v_proj") {
    if (partner_is_half(adapter, entry.name, leaf, "q_proj"))
      return {&cause::orphan_factor, "q_proj has one of its two factors only"};
    return {&cause::kv_without_q, fmt::format("{} without q_proj", leaf)};
  }
  if (leaf == "up_proj") {
    for (std::string_view gate : {"gate_proj", "w1"})
      if (partner_is_half(adapter, entry.name, leaf, gate))
        return {&cause::orphan_factor, "gate_proj has one of its two factors only"};
    return {&cause::up_without_gate, "up_proj without gate_proj"};
  }
  if (leaf == "kv_a_proj_with_mqa")
    return {&cause::half_mla, "kv_a_proj_with_mqa without q_a_proj"};
  if (is_one_of(leaf, kGdn))
    return {&cause::split_gdn, fmt::format("{} is not served by itself", leaf)};
  const std::string target = normalised_target(leaf, features);
  if (targets.count(target) == 0 && (adapter.all_targets || adapter.targets.count(target) != 0))
    return {&cause::server_options,
            fmt::format("the server's --lora-target-modules lack {}", target)};
  if (targets.count(target) == 0)
    return {&cause::config_without_tensors,
            fmt::format("target_modules does not name {}", in_text(leaf))};
  return {&cause::no_such_module, fmt::format("SGLang has no module called {}", in_text(leaf))};
}

Diagnosis cause_of_shape(const CpuAdapter& adapter, const Staged& entry, int64_t max_rank,
                         std::string found_and_expected) {
  const std::string_view leaf = module_of(entry.name);
  if (adapter.r > max_rank)
    return {&cause::rank_over_limit,
            fmt::format("r = {}, and the server's --max-lora-rank is {}", adapter.r, max_rank)};
  for (int32_t id : entry.sources()) {
    const Source& source = adapter.source(id);
    if (!is_factor(source.name))
      return {&cause::extra_becomes_b,
              "is not a low-rank factor: SGLang takes it for the B of its module"};
    if (belongs_to_tower(source.name))
      return {&cause::layer_out_of_range,
              "a tensor of another tower, which SGLang puts into the text layer of that number"};
  }
  if (contains(entry.name, "experts.gate_up_proj") || contains(entry.name, "experts.down_proj"))
    if (entry.rank() == 2 && !expert_of(entry.name))
      return {&cause::stacked_peft_experts, "a stacked expert parameter as PEFT saves it"};
  if (leaf == "fused_qkv_a_proj_with_mqa" && entry.blocks.back().source == kZeros)
    return {&cause::half_mla, "q_a_proj without kv_a_proj_with_mqa"};
  for (int32_t id : entry.sources()) {
    const int64_t rank = rank_of_factor(adapter.source(id));
    if (rank >= 0 && rank != adapter.r) return rank_cause(adapter, adapter.source(id), rank);
  }
  return {&cause::shape_mismatch, std::move(found_and_expected)};
}

}  // namespace moelora::sglang
