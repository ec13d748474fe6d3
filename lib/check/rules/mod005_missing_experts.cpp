#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "lib/base/utf8.h"
#include "lib/check/define_rule.h"
#include "lib/check/name_groups.h"
#include "lib/check/rule_context.h"
#include "lib/check/subject/subject.h"
#include "lib/engine/cause.h"

namespace moelora {
namespace {

// Which experts of which layers have factors.
struct ExpertCoverage {
  using Key = std::pair<int, std::string>;
  struct Place {
    std::string stem;        // "model.layers.3.mlp.experts"
    std::vector<bool> held;  // by expert; empty: all of them, in one tensor
  };
  // By layer and the projection's name in the file's own words ("gate_proj"; "" for a stacked
  // pair).
  std::map<Key, Place> places;

  std::vector<int> layers() const;  // that have any, sorted
};

std::vector<int> ExpertCoverage::layers() const {
  std::vector<int> out;
  for (const auto& entry : places)
    if (out.empty() || out.back() != entry.first.first) out.push_back(entry.first.first);
  return out;
}

// The place of a routed-expert factor. REQUIRES tensor.expert.
ExpertCoverage::Key coverage_key(const NamedTensor& tensor) {
  const ExpertPath& place = *tensor.expert;
  return {place.layer,
          std::string(place.projection ? projection_name(*place.projection) : std::string_view())};
}

// `experts` is E of the base model; numbers beyond it are left out (MOD004).
ExpertCoverage expert_coverage(const Subject& subject, int64_t experts) {
  ExpertCoverage out;
  for (const NamedTensor& tensor : subject.parts.tensors) {
    if (!tensor.expert || tensor.elements() == 0) continue;
    const ExpertPath& place = *tensor.expert;
    auto& entry = out.places[coverage_key(tensor)];
    if (entry.stem.empty()) entry.stem = tensor.experts_path();
    if (!place.expert || *place.expert >= experts) continue;
    entry.held.resize(static_cast<size_t>(experts));
    entry.held[static_cast<size_t>(*place.expert)] = true;
  }
  return out;
}

std::vector<int> missing(const std::vector<bool>& held) {
  std::vector<int> out;
  for (size_t e = 0; e < held.size(); ++e)
    if (!held[e]) out.push_back(static_cast<int>(e));
  return out;
}

// Projections of one layer that lack the same experts.
struct Lack {
  std::vector<std::string> words;
  size_t experts = 0;
};

std::map<ExpertCoverage::Key, Lack> lacks_of(const ExpertCoverage& coverage) {
  std::map<ExpertCoverage::Key, Lack> out;  // by layer and what is absent
  for (const auto& [key, place] : coverage.places) {
    const std::vector<int> absent = missing(place.held);
    if (absent.empty()) continue;
    Lack& lack = out[{key.first, ranges(absent)}];
    lack.words.push_back(key.second);
    lack.experts = absent.size();
  }
  return out;
}

void check_experts(RuleContext& context, const ExpertCoverage& coverage, int64_t experts) {
  const auto lacks = lacks_of(coverage);
  if (lacks.empty()) return;
  std::map<ExpertCoverage::Key, std::string> messages;  // by place
  for (const auto& [key, lack] : lacks)
    for (const std::string& word : lack.words)
      messages[{key.first, word}] =
          fmt::format("has {} of {} of {} experts, and none of {}", fmt::join(lack.words, ", "),
                      experts - static_cast<int64_t>(lack.experts), experts, key.second);
  NameGroups groups;
  for (const NamedTensor& tensor : context.subject().parts.tensors) {
    if (!tensor.expert) continue;
    const auto message = messages.find(coverage_key(tensor));
    if (message != messages.end()) groups.add(message->second, tensor.name);
  }
  groups.report(context, [&](Finding& finding, const RuleContext& c) {
    finding.where = c.subject().parts.find(finding.names.front())->experts_path();
  });
}

// Whether the config names layers, so that some of them are what was asked for.
bool chooses_layers(const Subject& subject) {
  const Json* layers = subject.config.find("layers_to_transform");
  if (layers != nullptr && !layers->is(Json::Kind::null)) return true;
  if (!subject.parsed_config) return false;
  const auto has_number = [](const std::string& target) {
    return without_numbers(target) != target;
  };
  const AdapterConfig& config = *subject.parsed_config;
  return !config.target_regex.empty() ||
         std::any_of(config.target_modules.begin(), config.target_modules.end(), has_number) ||
         std::any_of(config.target_parameters.begin(), config.target_parameters.end(), has_number);
}

void check_layers(RuleContext& context, const ExpertCoverage& coverage) {
  const ModelSpec& spec = *context.spec();
  const std::vector<int> held = coverage.layers();
  std::vector<int> absent;
  int64_t moe = 0;
  for (int layer = 0; layer < static_cast<int>(spec.layers); ++layer) {
    if (!spec.is_moe(layer)) continue;
    ++moe;
    if (!std::binary_search(held.begin(), held.end(), layer)) absent.push_back(layer);
  }
  if (absent.empty() || absent.size() == static_cast<size_t>(moe)) return;
  Finding& finding = context.report(
      {coverage.places.begin()->second.stem},
      fmt::format("has routed-expert factors, and layers {} of the {} MoE layers have none",
                  ranges(absent), moe));
  if (chooses_layers(context.subject())) finding.severity = Severity::information;
}

void check(RuleContext& context) {
  if (context.subject().experts.empty()) return;
  const int64_t experts = context.spec()->experts;
  const ExpertCoverage coverage = expert_coverage(context.subject(), experts);
  if (coverage.places.empty()) return;
  check_experts(context, coverage, experts);
  check_layers(context, coverage);
}

}  // namespace

const Rule mod005_missing_experts = {
    .id = "MOD005",
    .name = "missing-experts",
    .cause = &cause::missing_experts,
    .severity = Severity::warning,
    .needs_base = true,
    .what = "Some experts, or the experts of some MoE layers, have no factors.",
    .why =
        "SGLang serves what is missing as zero without a word; vLLM stops with a bare "
        "AssertionError where an expert of a layer is missing.",
    .fix = "Where that is meant, nothing; else save the adapter again from all ranks.",
    .source = "oracles experts_0_2_only, one_moe_layer_only; vllm.md 1.6",
    .breaks = {.change = "remove expert 3",
               .apply = [](Specimen& specimen) { remove_tensors(specimen, ".experts.3."); }},
    .check = check,
};

}  // namespace moelora
