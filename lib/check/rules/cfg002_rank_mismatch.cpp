#include <fmt/core.h>

#include <cstdint>
#include <vector>

#include "lib/check/define_rule.h"
#include "lib/check/engine_findings.h"
#include "lib/check/name_groups.h"
#include "lib/check/rule_context.h"
#include "lib/check/subject/module_paths.h"
#include "lib/check/subject/stacked_file.h"
#include "lib/check/subject/subject.h"
#include "lib/engine/cause.h"

namespace moelora {
namespace {

// The rank that adapter_config.json gives a module, and the one its factors have (of one expert
// where experts are stacked). A factor of the wrong shape has no rank: others say so.
struct RankCheck {
  const NamedTensor& tensor;
  int64_t found;     // 0: rows or columns that do not divide by the experts
  int64_t expected;  // after rank_pattern
};

// Finds every lora_A and lora_B whose rank is not the expected one. REQUIRES a parsed config.
class RankChecker {
 public:
  explicit RankChecker(const Subject& subject)
      : subject_(subject), config_(*subject.parsed_config) {}

  std::vector<RankCheck> run() {
    for (const FactorPair& pair : subject_.parts.pairs) {
      const NamedTensor& any = subject_.parts.any(pair);
      if (any.expert && any.expert->form == ExpertPath::Form::parameters) continue;
      const int64_t expected = expected_rank(any);
      for (const NamedTensor* factor : {subject_.parts.a(pair), subject_.parts.b(pair)})
        if (factor != nullptr) check(*factor, expected);
    }
    if (const auto file = stacked_file(subject_)) check_stacked(*file);
    return std::move(out_);
  }

 private:
  // By the name as spelled where a pattern knows it, else by the names the base model has for it.
  int64_t expected_rank(const NamedTensor& any) const {
    const std::string end = is_parameter(subject_, any.module + ".weight") ? ".weight" : "";
    if (const int64_t rank = config_.scaling(any.module + end).rank; rank != config_.r) return rank;
    if (const LinearSpec* linear = subject_.linear_of(any))
      for (const std::string& name : {linear->memory, linear->hub})
        if (const int64_t rank = config_.scaling(name + end).rank; rank != config_.r) return rank;
    if (any.is_named_experts())
      return config_.scaling(sibling(any.module, projection_name(*any.expert->projection))).rank;
    return config_.r;
  }

  void check(const NamedTensor& t, int64_t expected) {
    const bool stacked = t.is_named_experts();
    if (t.elements() == 0 || t.shape.size() != (stacked ? 3U : 2U)) return;
    const size_t rows = t.shape.size() - 2;
    const int64_t found = t.is_a() ? t.shape[rows] : t.shape[rows + 1];
    if (found != expected) out_.push_back({t, found, expected});
  }

  void check_stacked(const StackedFile& file) {
    if (!file.reading || subject_.spec() == nullptr) return;
    for (size_t i = 0; i < file.pairs.size(); ++i) {
      const int64_t experts = subject_.spec()->batched_experts(file.reading->projection[i]);
      const int64_t rows = file.pairs[i].a->tensor.dim(0);
      const int64_t expected = config_.scaling(parameter_path(file, i, subject_.spec())).rank;
      if (rows == experts * expected || local_experts(file, i, subject_)) continue;
      const int64_t found = experts > 0 && rows % experts == 0 ? rows / experts : 0;
      for (const ExpertTensor* t : {file.pairs[i].a, file.pairs[i].b})
        out_.push_back({*subject_.parts.find(t->name), found, expected});
    }
  }

  const Subject& subject_;
  const AdapterConfig& config_;
  std::vector<RankCheck> out_;
};

std::string message(const RankCheck& check) {
  const NamedTensor& tensor = check.tensor;
  const bool stacked = tensor.expert && tensor.expert->form == ExpertPath::Form::parameters;
  if (check.found == 0)
    return fmt::format("has shape {}, whose {} do not divide by the experts of the base model",
                       to_string(tensor.shape), tensor.is_a() ? "rows" : "columns");
  return fmt::format("has rank {}{}, but adapter_config.json says {}", check.found,
                     stacked ? " an expert" : "", check.expected);
}

// Whether a 2-D factor has the rank that is expected of it on its other side.
bool is_transposed(const Subject& subject, const std::string& name) {
  const NamedTensor* tensor = subject.parts.find(name);
  if (tensor == nullptr || tensor->shape.size() != 2) return false;
  const int64_t other = tensor->is_a() ? tensor->shape[1] : tensor->shape[0];
  return other == subject.parsed_config->scaling(tensor->module).rank;
}

// None where a pattern of the config cannot be evaluated, which CFG003 says.
std::vector<RankCheck> checks_of(const Subject& subject) try {
  return RankChecker(subject).run();
} catch (const MachineError&) {
  throw;
} catch (const Error&) {
  return {};
}

void check(RuleContext& context) {
  const Subject& subject = context.subject();
  if (!subject.parsed_config) return;
  NameGroups groups;
  for (const RankCheck& check : checks_of(subject)) groups.add(message(check), check.tensor.name);
  groups.report(context, [&](Finding& finding, const RuleContext& c) {
    if (is_transposed(subject, finding.names.front()))
      finding.fix =
          "The factors are transposed: save the adapter again with PEFT, lora_A as "
          "[rank, in] and lora_B as [out, rank].";
    downgrade_if_served(finding, c);
  });
}

}  // namespace

const Rule cfg002_rank_mismatch = {
    .id = "CFG002",
    .name = "rank-mismatch",
    .cause = &cause::rank_mismatch,
    .what = "A factor has another rank than r, after rank_pattern.",
    .why =
        "The scale is lora_alpha / r: with the wrong r the delta is too weak or too strong. "
        "PEFT refuses the sizes; SGLang: \"LoRA buffer shape torch.Size([4, 64]) does not match "
        "weight shape torch.Size([8, 64]).\" on the first request; vLLM pads and serves it with "
        "the config's scale.",
    .fix =
        "Set r, or a rank_pattern entry for the module, to the rank of the tensors, and "
        "lora_alpha so that alpha / r is the scale of the training.",
    .source = "NeMo AutoModel issue 3834; oracles tensor_rank_bigger_than_r, rank_pattern_o",
    .breaks = {.change = "say \"r\": 8 of factors of rank 4", .config = {{"r", "8"}}},
    .check = check,
};

}  // namespace moelora
