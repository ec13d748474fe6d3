#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <optional>

#include "lib/check/define_rule.h"
#include "lib/check/engine_findings.h"
#include "lib/check/name_groups.h"
#include "lib/check/rule_context.h"
#include "lib/check/subject/base_headers.h"
#include "lib/check/subject/stacked_file.h"
#include "lib/check/subject/subject.h"
#include "lib/engine/cause.h"

namespace moelora {
namespace {

// What goes into and out of a module of the base model.
struct ModuleDims {
  int64_t in, out;
};

std::optional<ModuleDims> stored_dims(const NamedTensor& tensor, const LinearSpec* linear,
                                      const BaseHeaders& headers) {
  const BaseHeaders::Weight* weight = headers.find_linear(tensor.module);
  if (linear != nullptr && weight == nullptr) weight = headers.find_linear(linear->hub);
  if (linear != nullptr && weight == nullptr) weight = headers.find_linear(linear->memory);
  if (weight == nullptr) return std::nullopt;
  const bool embedding =
      linear != nullptr ? linear->role == Role::embedding : tensor.part >= TensorPart::embedding_a;
  const int64_t rows = weight->shape[0], columns = weight->shape[1];
  return embedding ? ModuleDims{rows, columns} : ModuleDims{columns, rows};
}

// Of the module of a factor: from the weights where they are at hand (`headers` may be null), else
// from the config. nullopt for a module that is not known, or a stacked pair, which may be either
// parameter.
std::optional<ModuleDims> module_dims(const NamedTensor& tensor, const Subject& subject,
                                      const BaseHeaders* headers) {
  const ModelSpec& spec = *subject.spec();
  if (tensor.expert) {
    if (!tensor.expert->projection) return std::nullopt;
    Projection projection = *tensor.expert->projection;
    if (!spec.gated && projection == Projection::gate) projection = Projection::up;
    return ModuleDims{spec.in_dim(projection), spec.out_dim(projection)};
  }
  const LinearSpec* linear = subject.linear_of(tensor);
  if (headers != nullptr)
    if (const auto stored = stored_dims(tensor, linear, *headers)) return stored;
  if (linear == nullptr) return std::nullopt;
  return ModuleDims{linear->in, linear->out};
}

// "" for a factor that fits, or has too few dims (FMT007, FMT010).
std::string mismatch(const NamedTensor& tensor, const ModuleDims& dims) {
  const size_t rank = tensor.shape.size();
  const bool stacked = tensor.is_named_experts();
  if (tensor.elements() == 0 || rank < (stacked ? 3U : 2U)) return "";
  if (rank != (stacked ? 3U : 2U))
    return fmt::format("has {} dims, expected {}", rank, stacked ? "three" : "two");
  const int64_t found = tensor.is_a() ? tensor.shape[rank - 1] : tensor.shape[rank - 2];
  const int64_t expected = tensor.is_a() ? dims.in : dims.out;
  if (found == expected) return "";
  return fmt::format("has shape {}, expected {} {}: the module of this base model is {} -> {}",
                     to_string(tensor.shape), expected, tensor.is_a() ? "columns" : "rows", dims.in,
                     dims.out);
}

bool fits_a_parameter(const StackedPair& pair, const ModelSpec& spec) {
  const Projection first = spec.gated ? Projection::gate_up : Projection::up;
  const std::array<Projection, 2> both = {first, Projection::down};
  return std::any_of(both.begin(), both.end(), [&](Projection p) {
    const int64_t in = spec.in_dim(p), out = spec.out_dim(p);
    return (pair.a_dim() == in && pair.b_dim() == out) ||
           (pair.a_dim() == out && pair.b_dim() == in);
  });
}

// A stacked pair may be either parameter, read from either side.
void check_stacked(RuleContext& context) {
  const auto file = stacked_file(context.subject());
  if (!file || file->reading || file->ambiguous_roles || file->pairs.empty()) return;
  const ModelSpec& spec = *context.spec();
  std::vector<std::string> misfits, all;
  for (const StackedPair& pair : file->pairs)
    for (const ExpertTensor* t : {pair.a, pair.b}) {
      all.push_back(t->name);
      if (!fits_a_parameter(pair, spec)) misfits.push_back(t->name);
    }
  const bool alone = !misfits.empty();
  std::vector<std::string>& names = alone ? misfits : all;
  std::sort(names.begin(), names.end());
  const std::string shape = to_string(context.subject().tensors.at(names.front()).shape());
  Finding& finding = context.report(
      std::move(names),
      alone ? fmt::format("has shape {}, and the pair fits neither {} -> {} (gate and up) nor "
                          "{} -> {} (down) of this base model's experts, from either side",
                          shape, spec.expert_in, spec.out_dim(Projection::gate_up),
                          spec.intermediate, spec.expert_in)
            : file->problem->text());
  downgrade_if_served(finding, context);
}

void check(RuleContext& context) {
  const BaseHeaders* headers = context.deployment().base_headers.get();
  const auto fault = [&](const NamedTensor& tensor) -> std::string {
    if (!tensor.is_factor()) return "";
    const auto dims = module_dims(tensor, context.subject(), headers);
    return dims ? mismatch(tensor, *dims) : "";
  };
  report_tensors(context, fault, downgrade_if_served);
  check_stacked(context);
}

}  // namespace

const Rule mod002_shape_mismatch = {
    .id = "MOD002",
    .name = "shape-mismatch",
    .cause = &cause::shape_mismatch,
    .needs_base = true,
    .what = "A factor does not have the input or output size of the base model's module.",
    .why =
        "Larger ones stop a server on the first request (SGLang: \"LoRA buffer shape ... does not "
        "match weight shape ...\"; vLLM: \"The size of tensor a (64) must match the size of tensor "
        "b (96)\") or are cut; smaller ones vLLM copies into a corner of the buffer and serves.",
    .fix = "Name the base model that the adapter was trained on (--base).",
    .source = "sglang.md 1.7; vllm.md 1.12",
    .breaks = {.change = "give one q_proj a lora_A of 48 columns",
               .apply =
                   [](Specimen& specimen) {
                     replace_tensors(specimen, "layers.0.self_attn.q_proj.lora_A", {4, 48});
                   }},
    .check = check,
};

}  // namespace moelora
