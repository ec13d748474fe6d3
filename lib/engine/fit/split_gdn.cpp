// Qwen3.5's linear attention joins q, k and v in one Linear beside z; SGLang's layer loads the four
// slices apart, and only under the name of the whole in target_modules (facts: sglang.md 1.5, 1.6).

#include <fmt/format.h>

#include <array>

#include "lib/engine/fit/step.h"

namespace moelora::fit {
namespace {

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

void run(FitContext& context) {
  std::map<std::string, Slices> found;
  for (const auto& [module, pair] : context.adapter.dense)
    for (std::string_view name : {kJoint, kZ}) {
      if (!module.ends_with(name)) continue;
      const std::string parent = module.substr(0, module.size() - name.size());
      if (const auto slices = slices_of(context.spec, parent)) found.emplace(parent, *slices);
    }
  if (found.empty()) return;
  std::vector<std::string> names;
  for (const auto& entry : found) {
    split(context.adapter, entry.second);
    names.push_back(entry.first);
  }
  for (const char* name : {"in_proj_q", "in_proj_k", "in_proj_v", "in_proj_z"})
    context.fitting.suffixes[name] = "in_proj_qkvz";
  context.note(split_gdn.name,
               fmt::format("in_proj_qkv cut into q, k and v beside z, as SGLang joins "
                           "them, in {} (exact)",
                           some_of(names)));
}

}  // namespace

const FitStep split_gdn = {
    "split-gdn", "sglang",
    "in_proj_qkv and in_proj_z of Qwen3.5's linear attention: the four slices SGLang loads, named "
    "as one in target_modules",
    run};

}  // namespace moelora::fit
