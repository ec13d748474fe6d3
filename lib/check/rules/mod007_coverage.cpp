#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "lib/base/dotted_path.h"
#include "lib/base/utf8.h"
#include "lib/check/define_rule.h"
#include "lib/check/name_groups.h"
#include "lib/check/rule_context.h"
#include "lib/check/subject/module_paths.h"

namespace moelora {
namespace {

// Leaf names and layers of the modules of one kind.
struct Covered {
  std::set<std::string> words;
  // By what stands before the number: "model.encoder.layers."; "" for a model without an encoder.
  std::map<std::string, std::set<int>> layers;

  void add_layer(const LinearSpec& linear, bool has_encoder) {
    const std::string& path = linear.memory;
    size_t begin = 0;
    if (!has_encoder && linear.layer >= 0) layers[""].insert(linear.layer);
    if (!has_encoder || linear.layer < 0) return;
    while (begin < path.size()) {
      const size_t end = std::min(path.find('.', begin), path.size());
      if (const auto layer = parse_index(std::string_view(path).substr(begin, end - begin))) {
        layers[path.substr(0, begin)].insert(static_cast<int>(*layer));
        return;
      }
      begin = end + 1;
    }
  }
};

struct Coverage {
  std::map<Role, Covered> dense;
  Covered experts;
  size_t unknown = 0;
};

const LinearSpec* linear_or_joint(const Subject& subject, const NamedTensor& tensor) {
  const LinearSpec* linear = subject.linear_of(tensor);
  const ModelSpec* spec = subject.spec();
  return linear != nullptr || spec == nullptr ? linear : joint_module(*spec, tensor.module);
}

Coverage cover(const Subject& subject) {
  Coverage out;
  for (const FactorPair& pair : subject.parts.pairs) {
    const NamedTensor& any = subject.parts.any(pair);
    if (any.expert) {
      out.experts.layers[""].insert(any.expert->layer);
      if (any.expert->projection)
        out.experts.words.emplace(projection_name(*any.expert->projection));
    } else if (const LinearSpec* linear = linear_or_joint(subject, any)) {
      Covered& covered = out.dense[linear->role];
      covered.words.emplace(leaf_of(any.module));
      covered.add_layer(*linear, subject.spec()->has_encoder);
    } else {
      ++out.unknown;
    }
  }
  if (out.experts.words.empty() && subject.loaded)  // stacked pairs name no projection
    for (const auto& entry : subject.loaded->adapter.experts)
      out.experts.words.emplace(projection_name(entry.first.projection));
  return out;
}

std::string layers_text(const Covered& covered) {
  std::vector<std::string> stacks;
  for (const auto& [stack, layers] : covered.layers)
    stacks.push_back(stack + ranges({layers.begin(), layers.end()}));
  if (stacks.empty()) return "";
  return fmt::format(" in layers {}", fmt::join(stacks, " and "));
}

std::string text_of(std::string_view what, const Covered& covered) {
  const std::string words =
      covered.words.empty() ? "" : fmt::format(" ({})", fmt::join(covered.words, ", "));
  return fmt::format("{}{}{}", what, words, layers_text(covered));
}

bool names_mlp(const Subject& subject) {
  if (!subject.parsed_config) return false;
  const auto& targets = subject.parsed_config->target_modules;
  return std::any_of(targets.begin(), targets.end(), [](const std::string& target) {
    return target == "gate_proj" || target == "up_proj" || target == "down_proj";
  });
}

void check(RuleContext& context) {
  const Subject& subject = context.subject();
  if (subject.parts.pairs.empty()) return;
  const Coverage coverage = cover(subject);
  std::vector<std::string> adapted;
  for (const auto& [role, covered] : coverage.dense)
    adapted.push_back(text_of(role_name(role), covered));
  if (!coverage.experts.layers.empty())
    adapted.push_back(text_of("routed experts", coverage.experts));
  if (coverage.unknown > 0)
    adapted.push_back(pluralized(coverage.unknown, "module") + " unknown to the base model");
  const bool shared_only = coverage.experts.layers.empty() && names_mlp(subject) &&
                           coverage.dense.count(Role::shared_expert) != 0;
  context.report(fmt::format("adapts {}{}", fmt::join(adapted, "; "),
                             shared_only ? "; gate_proj, up_proj and down_proj reach the shared "
                                           "experts only, the routed experts are as in the base "
                                           "model"
                                         : ""));
}

}  // namespace

const Rule mod007_coverage = {
    .id = "MOD007",
    .name = "coverage",
    .severity = Severity::information,
    .needs_base = true,
    .what =
        "Always: what the adapter changes of attention, dense MLP, routed and shared experts, "
        "router and embeddings.",
    .why =
        "An adapter that trains less than was meant loads everywhere and looks like a weak one: "
        "on transformers 5 gate_proj, up_proj and down_proj as target_modules reach shared "
        "experts and dense layers only.",
    .fix =
        "Where something is missing that was meant: target_parameters for the experts of "
        "transformers 5.",
    .source = "unsloth issues 4476 and 11014; vLLM issue 47088",
    .breaks = {.change = "nothing"},
    .check = check,
};

}  // namespace moelora
