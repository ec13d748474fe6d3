#include "lib/engine/sglang/repairs.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cmath>
#include <filesystem>
#include <map>
#include <optional>

#include "lib/base/cast.h"
#include "lib/base/error.h"
#include "lib/base/parallel.h"

namespace moelora::sglang {

using fit::FitContext;
using fit::FitStep;
using fit::some_of;

namespace {

// ---- split-gdn ---------------------------------------------------------------------------------

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

DensePair zeros_like(const DensePair& beside, int64_t in, int64_t out) {
  const int64_t rank = factor_rank(beside.a, Side::A);
  return {Tensor::zeros(beside.a.dtype(), {rank, in}), Tensor::zeros(beside.b.dtype(), {out, rank}),
          beside.scaling, false};
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
    part = zeros_like(beside, s.in, rows);
    if (joint != dense.end())
      part = {beside.a, beside.b.slice(0, row, rows), beside.scaling, false};
    row += rows;
  }
  if (z == dense.end()) dense[s.parent + std::string(kZ)] = zeros_like(beside, s.in, s.value);
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
  context.note(split_gdn.name,
               fmt::format("in_proj_qkv cut into q, k and v beside z, as SGLang joins "
                           "them, in {} (exact)",
                           some_of(names)));
}

// ---- whole-groups ------------------------------------------------------------------------------

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

DensePair zeros_beside(const DensePair& pair, const LinearSpec& linear) {
  const int64_t rank = factor_rank(pair.a, Side::A);
  return {Tensor::zeros(pair.a.dtype(), {rank, linear.in}),
          Tensor::zeros(pair.b.dtype(), {linear.out, rank}), pair.scaling, false};
}

void add_siblings(FitContext& context) {
  std::map<std::string, DensePair> added;
  for (const auto& [module, pair] : context.adapter.dense) {
    const size_t dot = module.rfind('.');
    if (dot == std::string::npos) continue;
    for (const Need& need : kNeeds) {
      if (std::string_view(module).substr(dot + 1) != need.present) continue;
      const std::string other = module.substr(0, dot + 1) + std::string(need.absent);
      const LinearSpec* linear = context.spec().find_linear(other);
      if (linear != nullptr && context.adapter.dense.count(other) == 0)
        added.emplace(other, zeros_beside(pair, *linear));
    }
  }
  if (added.empty()) return;
  std::vector<std::string> names;
  for (const auto& entry : added) names.push_back(entry.first);
  context.adapter.dense.merge(added);
  context.note(whole_groups.name,
               fmt::format("{} loads these only with their siblings: zero factors for {} (exact)",
                           context.title(), some_of(names)));
}

// ---- wide-range --------------------------------------------------------------------------------

constexpr double kLargestF16 = 65504;

std::vector<Tensor*> narrow_parts(Adapter& adapter) {
  std::vector<Tensor*> out;
  for (auto& entry : adapter.experts)
    for (Tensor& part : entry.second.b.parts)
      if (part.rank() != 0 && part.dtype() == DType::F16) out.push_back(&part);
  return out;
}

bool overflows(const std::vector<Tensor*>& parts, double scale, int threads) {
  std::atomic<bool> found = false;
  parallel_for(static_cast<int64_t>(parts.size()), threads, [&](int64_t i, int) {
    if (found) return;
    for (const double value : read_double(*parts[static_cast<size_t>(i)]))
      if (std::isfinite(value) && std::fabs(value * scale) > kLargestF16) found = true;
  });
  return found;
}

// Gate, up and down alike, as SGLang joins gate and up.
void widen(Adapter& adapter) {
  std::map<SourcePtr, SourcePtr> done;
  for (auto& entry : adapter.experts)
    for (Tensor& part : entry.second.b.parts)
      if (part.rank() != 0)
        part = part.map_sources(DType::F32, [&](const SourcePtr& source) {
          SourcePtr& slot = done[source];
          if (!slot) slot = cast_source(source, DType::F32);
          return slot;
        });
}

void widen_overflowing(FitContext& context) {
  const std::vector<Tensor*> parts = narrow_parts(context.adapter);
  if (parts.empty() || !overflows(parts, context.scale, context.options.threads)) return;
  widen(context.adapter);
  context.note(
      wide_range.name,
      fmt::format("SGLang scales lora_B of experts in F16, where some of it times {} would be "
                  "infinite: those factors become F32 (exact)",
                  context.scale));
}

// ---- added-tokens ------------------------------------------------------------------------------

constexpr const char* kFile = "added_tokens.json";

// Whether SGLang would refuse the file; it passes over one that is not JSON.
bool beyond_vocabulary(const std::string& path, int64_t vocab) {
  std::error_code ignored;
  if (!std::filesystem::is_regular_file(path, ignored)) return false;
  try {
    const Json tokens = read_json_file(path);
    if (!tokens.is(Json::Kind::object)) return false;
    for (const auto& [token, id] : tokens.members())
      if (id.is(Json::Kind::integer) && id.as_int() >= vocab) return true;
  } catch (const Error&) {
  }
  return false;
}

void leave_added_tokens(FitContext& context) {
  const std::string path = (std::filesystem::path(context.folder) / kFile).string();
  if (!beyond_vocabulary(path, context.spec().vocab)) return;
  context.changes.left_files.insert(kFile);
  context.note(
      added_tokens.name,
      fmt::format("{} is left behind: it has ids beyond the base's vocabulary of {}, which "
                  "SGLang refuses",
                  kFile, context.spec().vocab));
}

}  // namespace

const FitStep split_gdn = {
    "split-gdn",
    "in_proj_qkv and in_proj_z of Qwen3.5's linear attention: the four slices SGLang loads, named "
    "as one in target_modules",
    split_joint_attention, true};

const FitStep whole_groups = {
    "whole-groups",
    "q without v, k or v without q, up without gate, one of MLA's q_a and kv_a: zero factors for "
    "the missing one",
    add_siblings};

const FitStep wide_range = {
    "wide-range", "F16 experts whose lora_B times the scale passes 65504: F32, which holds it",
    widen_overflowing};

const FitStep added_tokens = {
    "added-tokens",
    "a tokenizer's added_tokens.json with ids beyond the vocabulary: left "
    "behind",
    leave_added_tokens};

}  // namespace moelora::sglang
