// SGLang: what its releases since the first with MoE LoRA do with an adapter (lib/engine/sglang).

#include "lib/engine/engine.h"

#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <map>
#include <optional>

#include "lib/base/cast.h"
#include "lib/base/dotted_path.h"
#include "lib/base/error.h"
#include "lib/base/parallel.h"
#include "lib/engine/buffers.h"
#include "lib/engine/fit/drop.h"
#include "lib/engine/fit/experts.h"
#include "lib/engine/fit/joined.h"
#include "lib/engine/fit/module_names.h"
#include "lib/engine/fit/scale_and_rank.h"
#include "lib/engine/fit/step.h"
#include "lib/engine/sglang/causes.h"
#include "lib/engine/sglang/features.h"
#include "lib/engine/sglang/kernels.h"
#include "lib/engine/sglang/options.h"
#include "lib/engine/sglang/plan.h"
#include "lib/engine/sglang/pool/pool_values.h"

namespace moelora {
namespace {

using namespace sglang;
using fit::FitContext;
using fit::FitStep;
using fit::some_of;

// Qwen3.5's linear attention joins q, k and v in one Linear beside z; SGLang's layer loads the four
// slices apart, and only under the name of the whole in target_modules (facts: sglang.md 1.5, 1.6).
constexpr std::string_view kJoint = ".in_proj_qkv", kZ = ".in_proj_z";

// The slices of one layer's in_proj_qkv: rows of q, of k and of v.
struct Slices {
  std::string parent;  // "model.layers.0.linear_attn"
  int64_t in, key, value;
};

std::optional<Slices> slices_of(const ModelSpec& spec, const std::string& parent) {
  const LinearSpec* joint = spec.find_linear(parent + std::string(kJoint));
  const LinearSpec* z = spec.find_linear(parent + std::string(kZ));
  if (joint == nullptr || z == nullptr) return std::nullopt;
  return Slices{parent, joint->in, (joint->out - z->out) / 2, z->out};
}

DensePair zeros_beside(const DensePair& pair, int64_t in, int64_t out) {
  const int64_t rank = factor_rank(pair.a, Side::A);
  return {Tensor::zeros(pair.a.dtype(), {rank, in}), Tensor::zeros(pair.b.dtype(), {out, rank}),
          pair.scaling, false};
}

// All four slices of a layer; those without factors are zero, since SGLang joins only all four.
void split(Adapter& adapter, const Slices& s) {
  auto& dense = adapter.dense;
  const auto joint = dense.find(s.parent + std::string(kJoint));
  const auto z = dense.find(s.parent + std::string(kZ));
  const DensePair beside = joint != dense.end() ? joint->second : z->second;
  int64_t row = 0;
  for (const auto& [name, rows] :
       {std::pair{".in_proj_q", s.key}, {".in_proj_k", s.key}, {".in_proj_v", s.value}}) {
    DensePair& part = dense[s.parent + name];
    part = zeros_beside(beside, s.in, rows);
    if (joint != dense.end())
      part = {beside.a, beside.b.slice(0, row, rows), beside.scaling, false};
    row += rows;
  }
  if (z == dense.end()) dense[s.parent + std::string(kZ)] = zeros_beside(beside, s.in, s.value);
  dense.erase(s.parent + std::string(kJoint));
}

void split_joint_attention(FitContext& context) {
  std::map<std::string, Slices> found;
  for (const auto& [module, pair] : context.adapter.dense)
    for (std::string_view name : {kJoint, kZ}) {
      if (!module.ends_with(name)) continue;
      const std::string parent = module.substr(0, module.size() - name.size());
      if (const auto slices = slices_of(context.spec(), parent)) found.emplace(parent, *slices);
    }
  if (found.empty()) return;
  std::vector<std::string> names;
  for (const auto& entry : found) {
    split(context.adapter, entry.second);
    names.push_back(entry.first);
  }
  for (const char* name : {"in_proj_q", "in_proj_k", "in_proj_v", "in_proj_z"})
    context.changes.suffixes[name] = "in_proj_qkvz";
  context.note("packed-gdn",
               fmt::format("in_proj_qkv cut into q, k and v beside z, as SGLang joins "
                           "them, in {} (exact)",
                           some_of(names)));
}

const FitStep split_gdn = {
    "packed-gdn",
    "in_proj_qkv and in_proj_z of Qwen3.5's linear attention: the four slices SGLang loads, named "
    "as one in target_modules",
    split_joint_attention, true};

// SGLang joins q, k and v, gate and up, and MLA's two down-projections into one buffer each, and
// fails where a part that it starts from is missing. A pair of zeros stands in (facts: sglang.md
// 1.5, 1.6).
// Where `present` is adapted and the module beside it is not, that one is needed.
struct Need {
  std::string_view present, absent;
};
constexpr std::array<Need, 7> kNeeds = {{{"q_proj", "v_proj"},
                                         {"k_proj", "q_proj"},
                                         {"k_proj", "v_proj"},
                                         {"v_proj", "q_proj"},
                                         {"up_proj", "gate_proj"},
                                         {"q_a_proj", "kv_a_proj_with_mqa"},
                                         {"kv_a_proj_with_mqa", "q_a_proj"}}};

// Whether SGLang would miss a part that no module of the base, which has them as one, stands for.
bool lacks_part(const FitContext& context, const JoinedModule& whole) {
  const auto adapted = [&](std::string_view part) {
    return context.adapter.dense.count(sibling(whole.module, part)) != 0;
  };
  return std::any_of(kNeeds.begin(), kNeeds.end(), [&](const Need& need) {
    return adapted(need.present) && !adapted(need.absent) &&
           context.spec().find_linear(sibling(whole.module, need.absent)) == nullptr;
  });
}

// SGLang joins parts itself, and takes the whole too: what both forms have alike stays as it is,
// but for parts that it would not join.
void join_lone_parts(FitContext& context) {
  fit::join_or_part(context, [&](const JoinedModule& module) {
    if (module.in_hub != module.in_memory) return fit::joining_of(module, context);
    return module.in_hub && lacks_part(context, module) ? Joining::whole : Joining::either;
  });
}

const FitStep joined_parts = {fit::kJoinedName, fit::kJoinedSummary, join_lone_parts, true};

void add_siblings(FitContext& context) {
  std::map<std::string, DensePair> added;
  for (const auto& [module, pair] : context.adapter.dense) {
    for (const Need& need : kNeeds) {
      if (leaf_of(module) != need.present) continue;
      const std::string other = sibling(module, need.absent);
      const LinearSpec* linear = context.spec().find_linear(other);
      if (linear != nullptr && context.adapter.dense.count(other) == 0)
        added.emplace(other, zeros_beside(pair, linear->in, linear->out));
    }
  }
  if (added.empty()) return;
  std::vector<std::string> names;
  for (const auto& entry : added) names.push_back(entry.first);
  context.adapter.dense.merge(added);
  context.note("whole-groups",
               fmt::format("{} loads these only with their siblings: zero factors for {} (exact)",
                           context.title(), some_of(names)));
}

const FitStep whole_groups = {
    "whole-groups",
    "q without v, k or v without q, up without gate, one of MLA's q_a and kv_a: zero factors for "
    "the missing one",
    add_siblings};

// SGLang multiplies an expert's lora_B by the scale in the adapter's own type, and only then casts
// it: in F16 what passes 65504 becomes an infinity (facts: goldens/oracles/sglang.md 3.4,
// measured). F32 holds every F16 value and every such product.
constexpr double kLargestF16 = 65504;

std::vector<Tensor*> expert_bs(Adapter& adapter) {
  std::vector<Tensor*> out;
  for (auto& entry : adapter.experts)
    for (Tensor& part : entry.second.b.parts)
      if (part.rank() != 0) out.push_back(&part);
  return out;
}

bool overflows(const std::vector<Tensor*>& parts, double scale, int threads) {
  std::atomic<bool> found = false;
  parallel_for(static_cast<int64_t>(parts.size()), threads, [&](int64_t i, int) {
    const Tensor& part = *parts[static_cast<size_t>(i)];
    if (found || part.dtype() != DType::F16) return;
    for (const double value : read_double(part))
      if (std::isfinite(value) && std::fabs(value * scale) > kLargestF16) found = true;
  });
  return found;
}

// Gate, up and down alike, as SGLang joins gate and up.
void widen_overflowing(FitContext& context) {
  const std::vector<Tensor*> parts = expert_bs(context.adapter);
  if (!overflows(parts, context.scale, context.options.threads)) return;
  std::map<SourcePtr, SourcePtr> done;
  for (Tensor* part : parts)
    *part = part->map_sources(DType::F32, [&](const SourcePtr& source) {
      SourcePtr& slot = done[source];
      if (!slot) slot = cast_source(source, DType::F32);
      return slot;
    });
  context.note(
      "wide-range",
      fmt::format("SGLang scales lora_B of experts in F16, where some of it times {} would be "
                  "infinite: those factors become F32 (exact)",
                  context.scale));
}

const FitStep wide_range = {
    "wide-range", "F16 experts whose lora_B times the scale passes 65504: F32, which holds it",
    widen_overflowing};

// A tokenizer's added_tokens.json beside an adapter: SGLang takes ids beyond the base's vocabulary
// for tokens that the adapter adds, and refuses it. An adapter that really adds some has saved its
// embeddings, which no server holds either.
constexpr const char* kFile = "added_tokens.json";

// Whether SGLang would refuse the file; it passes over one that is not JSON.
bool beyond_vocabulary(const std::string& folder, int64_t vocab) {
  try {
    const Json tokens = read_json_file({folder, kFile, Links::within});
    if (!tokens.is(Json::Kind::object)) return false;
    for (const auto& [token, id] : tokens.members())
      if (id.is(Json::Kind::integer) && id.as_int() >= vocab) return true;
  } catch (const Error&) {
  }
  return false;
}

void leave_added_tokens(FitContext& context) {
  if (!beyond_vocabulary(context.folder, context.spec().vocab)) return;
  context.changes.left_files.insert(kFile);
  context.note(
      "no-added-tokens",
      fmt::format("{} is left behind: it has ids beyond the base's vocabulary of {}, which "
                  "SGLang refuses",
                  kFile, context.spec().vocab));
}

const FitStep added_tokens = {
    "no-added-tokens",
    "a tokenizer's added_tokens.json with ids beyond the vocabulary: left "
    "behind",
    leave_added_tokens};

bool before_stacked_experts(const FitTarget& target) { return !target.engine.has("0.5.10"); }

// A server that starts without adapters takes none to be shared outer.
bool keeps_shared_outer(const FitTarget& target) {
  const bool detected = target.shared_outer && !starts_empty(target.server);
  return target.server.flag("experts-shared-outer-loras").value_or(detected);
}

// gpt-oss multiplies half of up's lora_B with gate's lora_A, as virtual experts before 0.5.23 do
// with all of it (facts: sglang.md 4.3, 4.4, engines_2026_11.md 1, measured).
std::string_view misreads_up(const FitTarget& target) {
  if (target.server.on("lora-use-virtual-experts") && !target.engine.has("0.5.23"))
    return "under virtual experts";
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
    {"gpt-oss, or virtual-experts=on before 0.5.23, with shared outer factors", wants_one_shared_a,
     &layouts::stacked_fused, "one lora_A for gate and up, written once for all experts"},
    {"shared outer factors, unless experts-shared-outer-loras=off or empty-start=on",
     keeps_shared_outer, &layouts::shared_outer, "its pool then holds each of them once"},
    {"gpt-oss, or virtual-experts=on before 0.5.23", wants_one_a, &layouts::stacked_fused,
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

// Factors of towers and prediction layers are passed over or land in a text layer of that number.
bool holds(DropKind kind, const FitTarget&) { return kind == DropKind::embeddings; }

// Before 0.5.11 it is right only for the rank that its pool has.
int64_t served_rank(const FitTarget& target, int64_t rank) {
  if (target.engine.has("0.5.11")) return rank;
  return std::max(rank, target.server.max_lora_rank.value_or(rank));
}

// What the steps add a gate to has one by then: what is left is of a model without gates.
Hint advice(const PlanEvent& event) {
  if (event.cause != &sglang::cause::up_without_gate) return {};
  return "this model has no gate_proj, and SGLang has no place for an up_proj alone: train without "
         "it, or merge the adapter into the base model";
}

constexpr std::array<const fit::FitStep*, 12> kSteps = {
    &fit::drop_unheld, &fit::module_names,  &joined_parts,      &split_gdn,
    &whole_groups,     &fit::whole_experts, &fit::one_scale,    &fit::one_a,
    &fit::one_rank,    &wide_range,         &fit::plain_config, &added_tokens};

constexpr EngineFit kFit = {
    .layouts = kLayouts,
    .write = write_options,
    .targets = TargetStyle::suffixes,
    .steps = kSteps,
    .holds = holds,
    .misreads_up = misreads_up,
    .served_rank = served_rank,
    .advice = advice,
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
    .newest = sglang::kReleases.back().version,
    .known_to = sglang::kReleases.back().date,
    .options = sglang::server_options,
    .plan = sglang::plan,
    .fill = sglang::fill_rank,
    .blocks = sglang::served_blocks,
    .buffers = &kBuffers,
    .fit = &kFit,
};

}  // namespace moelora
