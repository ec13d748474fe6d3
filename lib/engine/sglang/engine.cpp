// SGLang: what its releases since the first with MoE LoRA do with an adapter (lib/engine/sglang).

#include "lib/engine/engine.h"

#include <algorithm>
#include <array>

#include "lib/engine/buffers.h"
#include "lib/engine/fit/drop.h"
#include "lib/engine/fit/experts.h"
#include "lib/engine/fit/module_names.h"
#include "lib/engine/fit/scale_and_rank.h"
#include "lib/engine/sglang/features.h"
#include "lib/engine/sglang/kernels/served_blocks.h"
#include "lib/engine/sglang/options.h"
#include "lib/engine/sglang/plan.h"
#include "lib/engine/sglang/pool/pool_values.h"
#include "lib/engine/sglang/repairs.h"

namespace moelora {
namespace {

using namespace sglang;

bool before_stacked_experts(const FitTarget& target) { return !target.engine.has("0.5.10"); }

// A server that starts without adapters takes none to be shared outer.
bool keeps_shared_outer(const FitTarget& target) {
  const bool detected = target.shared_outer && !starts_empty(target.server);
  return target.server.flag("experts-shared-outer-loras").value_or(detected);
}

// Its virtual experts multiply up's lora_B with gate's lora_A, as gpt-oss on the default path does
// for half of its rows (facts: sglang.md 4.3, 4.4, measured).
std::string_view misreads_up(const FitTarget& target) {
  if (target.server.on("lora-use-virtual-experts")) return "under virtual experts";
  return target.spec.activation == "gpt_oss_swiglu" ? "on gpt-oss" : "";
}

bool wants_one_a(const FitTarget& target) {
  return target.spec.gated && !misreads_up(target).empty();
}

bool wants_one_shared_a(const FitTarget& target) {
  return wants_one_a(target) && keeps_shared_outer(target);
}

constexpr std::array<LayoutChoice, 5> kLayouts = {{
    {"before 0.5.10", before_stacked_experts, &layouts::peft_linear, "the one form it loads"},
    {"gpt-oss, or virtual-experts=on, with shared outer factors", wants_one_shared_a,
     &layouts::stacked_fused, "one lora_A for gate and up, written once for all experts"},
    {"shared outer factors, unless experts-shared-outer-loras=off or empty-start=on",
     keeps_shared_outer, &layouts::shared_outer, "its pool then holds each of them once"},
    {"gpt-oss, or virtual-experts=on", wants_one_a, &layouts::stacked_fused,
     "one lora_A for gate and up, which it takes for both"},
    {"else", [](const FitTarget&) { return true; }, &layouts::stacked,
     "every expert in four or six tensors per layer"},
}};

LayoutWriteOptions write_options(const FitTarget& target) {
  LayoutWriteOptions out;
  out.canonical_names = out.up_as_gate = true;
  out.shared_outer = keeps_shared_outer(target);
  return out;
}

bool holds(DropKind kind, const ModelSpec&) { return kind == DropKind::embeddings; }

// Before 0.5.11 it is right only for the rank that its pool has.
int64_t served_rank(const FitTarget& target, int64_t rank) {
  if (target.engine.has("0.5.11")) return rank;
  return std::max(rank, target.server.max_lora_rank.value_or(rank));
}

constexpr std::array<const fit::FitStep*, 11> kSteps = {
    &fit::drop_unheld,   &fit::module_names, &split_gdn,   &whole_groups,
    &fit::whole_experts, &fit::one_scale,    &fit::one_a,  &fit::one_rank,
    &wide_range,         &fit::plain_config, &added_tokens};

constexpr EngineFit kFit = {
    .layouts = kLayouts,
    .write = write_options,
    .targets = TargetStyle::suffixes,
    .steps = kSteps,
    .holds = holds,
    .misreads_up = misreads_up,
    .served_rank = served_rank,
};

constexpr BufferForm kBuffers = {
    .id = "sglang-pool",
    .names =
        "layers.{layer}.{qkv_proj\\|o_proj\\|gate_up_proj\\|gate_up_proj_moe\\|...}.{A\\|B}, "
        "{embed_tokens\\|lm_head}.{A\\|B}",
    .shapes =
        "dense A [c·R, in], B [out, R]; experts A [E, c·R, in], B [E, out, R], scaled, with E 1 "
        "for a shared outer factor; c factors stacked (q, k, v: 3), R --max-lora-rank",
};

}  // namespace

const Engine engines::sglang = {
    .id = "sglang",
    .title = "SGLang",
    .releases = sglang::kReleases,
    .newest = "0.5.18",
    .known_to = "2026-08-21",
    .options = sglang::kOptions,
    .plan = sglang::plan,
    .fill = sglang::fill_rank,
    .blocks = sglang::served_blocks,
    .buffers = &kBuffers,
    .fit = &kFit,
};

}  // namespace moelora
