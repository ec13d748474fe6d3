#include <fmt/core.h>

#include <algorithm>
#include <array>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <unordered_set>
#include <vector>

#include "lib/base/dotted_path.h"
#include "lib/base/error.h"
#include "lib/base/regex/python_regex.h"
#include "lib/base/utf8.h"
#include "lib/check/define_rule.h"
#include "lib/check/engine_findings.h"
#include "lib/check/name_groups.h"
#include "lib/check/rule_context.h"
#include "lib/check/subject/module_paths.h"
#include "lib/check/subject/subject.h"
#include "lib/engine/cause.h"

namespace moelora {
namespace {

// What target_modules and target_parameters name, held against the modules that have tensors.
// PEFT's rule: an entry names paths by their end; a string is a regular expression of whole paths.
// Experts' factors are called by many names (w1, gate_proj, gate_up_proj, experts), so that any of
// them names them.
struct TargetReading {
  std::vector<std::string> unused_modules;     // entries of target_modules without a tensor
  std::vector<std::string> unused_parameters;  // entries of target_parameters without a tensor
  std::vector<int> unnamed;                    // indices of pairs that no entry names
  bool names_experts = false;                  // some entry names a routed-expert factor
  std::optional<Error> problem;  // target_modules is an expression that cannot be evaluated
};

constexpr size_t kMostSamples = 64;  // of modules that differ in numbers only, for a regex
constexpr size_t kMostTries = 4096;  // of a regex in all

// Names that an expert factor goes by in the configs of trainers and servers.
std::vector<std::string_view> expert_words(const ExpertPath& place) {
  if (!place.projection)  // one parameter or another
    return {"gate_up_proj", "gate_proj",         "up_proj",       "down_proj",
            "experts",      "gate_up_proj_bias", "down_proj_bias"};
  switch (*place.projection) {
    case Projection::gate:
      return {"gate_proj", "w1", "gate_up_proj", "experts"};
    case Projection::up:
      return {"up_proj", "w3", "gate_up_proj", "experts"};
    case Projection::gate_up:
      return {"gate_up_proj", "gate_proj", "up_proj", "w1", "w3", "gate_up_projs", "experts"};
    case Projection::down:
      return {"down_proj", "w2", "down_projs", "experts"};
  }
  return {};
}

// Entries that name a path by its end.
class Entries {
 public:
  explicit Entries(const std::vector<std::string>& entries) : used_(entries.size()) {
    for (size_t i = 0; i < entries.size(); ++i) {
      index_.emplace(entries[i], i);
      const auto dots = static_cast<size_t>(std::count(entries[i].begin(), entries[i].end(), '.'));
      most_dots_ = std::max(most_dots_, dots);
    }
  }

  bool name(std::string_view path) {
    if (index_.empty()) return false;
    bool found = look_up(path);
    size_t at = path.size();
    for (size_t dots = 0; dots <= most_dots_ && at != std::string_view::npos && at > 0; ++dots) {
      at = path.rfind('.', at - 1);
      if (at != std::string_view::npos) found = look_up(path.substr(at + 1)) || found;
    }
    return found;
  }

  std::vector<std::string> unused() const {
    std::vector<std::string> out;
    for (const auto& [text, i] : index_)
      if (!used_[i]) out.emplace_back(text);
    std::sort(out.begin(), out.end());
    return out;
  }

 private:
  bool look_up(std::string_view path) {
    const auto at = index_.find(path);
    if (at == index_.end()) return false;
    used_[at->second] = true;
    return true;
  }

  std::unordered_map<std::string_view, size_t> index_;  // of the config's own strings
  std::vector<bool> used_;
  size_t most_dots_ = 0;
};

// A regular expression over tens of thousands of paths that differ in their numbers: a few of each
// kind are tried, and one that matches speaks for its kind. Beyond some thousand, it matches all.
class Regex {
 public:
  explicit Regex(const std::string& text) {
    if (text.empty() || text == "all" || text == "all-linear") return;
    try {
      regex_.emplace(text);
    } catch (const Error& error) {
      problem_ = error;
    }
  }

  bool matches(const std::string& path) {
    if (!regex_ || tries_ >= kMostTries) return true;
    Kind& kind = kinds_[without_numbers(path)];
    if (kind.matches || kind.tried++ >= kMostSamples) return kind.matches;
    ++tries_;
    try {
      return kind.matches = regex_->fullmatch(path);
    } catch (const Error& error) {  // it may name anything
      problem_ = error;
      regex_.reset();
      return true;
    }
  }

  const std::optional<Error>& problem() const { return problem_; }

 private:
  struct Kind {
    size_t tried = 0;
    bool matches = false;
  };
  std::optional<PythonRegex> regex_;
  std::optional<Error> problem_;
  size_t tries_ = 0;
  std::unordered_map<std::string, Kind> kinds_;
};

// REQUIRES a parsed config.
class TargetReader {
 public:
  explicit TargetReader(const Subject& subject)
      : subject_(subject),
        config_(*subject.parsed_config),
        modules_(config_.target_modules),
        parameters_(config_.target_parameters),
        regex_(config_.target_regex) {}

  TargetReading run() {
    const auto& pairs = subject_.parts.pairs;
    for (size_t i = 0; i < pairs.size(); ++i) {
      const NamedTensor& any = subject_.parts.any(pairs[i]);
      bool named = name_paths(pairs[i]);
      if (any.expert) named = name_expert(any) || named;
      if (!named) out_.unnamed.push_back(static_cast<int>(i));
      out_.names_experts = out_.names_experts || (named && any.expert);
    }
    out_.unused_modules = modules_.unused();
    out_.unused_parameters = parameters_.unused();
    out_.problem = regex_.problem();
    return std::move(out_);
  }

 private:
  bool name(const std::string& path) {
    const bool module = modules_.name(path), parameter = parameters_.name(path);
    return module || parameter || (!config_.target_regex.empty() && regex_.matches(path));
  }

  bool name_paths(const FactorPair& pair) {
    bool found = false;
    for (const std::string& path : paths_of(subject_, pair)) found = name(path) || found;
    return found;
  }

  // By every name of its projection; looked up once for each place in the layers.
  bool name_expert(const NamedTensor& tensor) {
    const auto [at, is_new] =
        by_place_.try_emplace({tensor.expert->layer, tensor.expert->projection});
    if (!is_new) return at->second;
    const std::string stem = tensor.experts_path();
    for (std::string_view word : expert_words(*tensor.expert))
      if (name(word == "experts" ? stem : stem + "." + std::string(word))) at->second = true;
    return at->second;
  }

  const Subject& subject_;
  const AdapterConfig& config_;
  Entries modules_, parameters_;
  Regex regex_;
  std::map<std::pair<int, std::optional<Projection>>, bool> by_place_;  // layer and projection
  TargetReading out_;
};

bool is_expert_word(const std::string& target) {
  constexpr std::string_view kWords[] = {
      "gate_proj", "up_proj",      "down_proj",     "w1",        "w2", "w3",
      "experts",   "gate_up_proj", "gate_up_projs", "down_projs"};
  return std::any_of(std::begin(kWords), std::end(kWords), [&](std::string_view word) {
    return ends_in(target, word) || target.starts_with(std::string(word) + ".");
  });
}

// Whether the base model has a module that the entry names; without a base model it may have.
bool base_has(const ModelSpec* spec, const std::string& target) {
  if (spec == nullptr) return true;
  const auto ends = [&](const std::string& path) {
    return ends_in(path, target) || ends_in(path + ".weight", target);
  };
  if (std::any_of(spec->linears.begin(), spec->linears.end(), [&](const LinearSpec& linear) {
        return ends(linear.hub) || ends(linear.memory);
      }))
    return true;
  const bool gate = target.ends_with("gate_proj") || target.ends_with("gate_up_proj");
  return spec->experts > 0 && is_expert_word(target) && (spec->gated || !gate);
}

bool without_gates(const ModelSpec* spec) {
  return spec != nullptr && spec->experts > 0 && !spec->gated;
}

std::string list(const std::vector<std::string>& names) {
  return list_some(names, 6, [](const std::string& name) { return in_quotes(name); });
}

void report_unused(RuleContext& context, std::string_view key,
                   const std::vector<std::string>& unused) {
  const Subject& subject = context.subject();
  std::vector<std::string> missing, foreign;
  for (const std::string& target : unused)
    (base_has(context.spec(), target) ? missing : foreign).push_back(target);
  const bool no_experts =
      subject.experts.empty() && std::any_of(missing.begin(), missing.end(), is_expert_word);
  if (!missing.empty()) {
    Finding& finding = context.report_config(
        key, fmt::format("names {}, for which there is no tensor{}", list(missing),
                         no_experts ? ": no routed expert was trained, or none was saved" : ""));
    finding.remedy = Remedy::by_hand;  // tensors may be lost, which a shorter list would hide
    // PEFT makes a layer for each, which adds nothing, and says which keys it misses.
    if (is_whole_for_peft(context)) finding.severity = Severity::information;
  }
  if (!foreign.empty())
    context
        .report_config(key,
                       fmt::format("names {}, which this base model does not have{}", list(foreign),
                                   without_gates(context.spec())
                                       ? " (it has up_proj and down_proj, and no gates)"
                                       : ""))
        .severity = Severity::information;
}

void report_unnamed(RuleContext& context, const TargetReading& targets) {
  const AdapterParts& parts = context.subject().parts;
  NameGroups experts, others;
  for (const int i : targets.unnamed) {
    const NamedTensor& tensor = parts.any(parts.pairs[static_cast<size_t>(i)]);
    (tensor.expert && targets.names_experts ? experts : others)
        .add("is named by no entry of target_modules or target_parameters", tensor.name);
  }
  experts.report(context, Severity::information);
  others.report(context);
}

// Takes out of `wanted` every run of components of a tensor's name: a module of that name has it.
void take_named(std::string_view tensor, size_t most_dots,
                std::unordered_set<std::string_view>& wanted) {
  for (size_t begin = 0; begin < tensor.size() && !wanted.empty();) {
    size_t end = begin;
    for (size_t dots = 0; dots <= most_dots; ++dots, ++end) {
      end = tensor.find('.', end);
      if (end == std::string_view::npos) break;
      wanted.erase(tensor.substr(begin, end - begin));
    }
    begin = std::min(tensor.find('.', begin), tensor.size() - 1) + 1;
  }
}

// Of many modules and tensors each is looked at once.
void report_unsaved(RuleContext& context) {
  const std::vector<std::string>& saved = context.subject().parsed_config->modules_to_save;
  std::unordered_set<std::string_view> wanted(saved.begin(), saved.end());
  size_t most_dots = 0;
  for (const std::string_view module : wanted)
    most_dots =
        std::max(most_dots, static_cast<size_t>(std::count(module.begin(), module.end(), '.')));
  constexpr size_t kMostDots = 32;  // no module lies deeper
  for (const NamedTensor& tensor : context.subject().parts.tensors)
    take_named(tensor.name, std::min(most_dots, kMostDots), wanted);
  std::vector<std::string> missing(wanted.begin(), wanted.end());
  std::sort(missing.begin(), missing.end());
  if (missing.empty()) return;
  context
      .report_config("modules_to_save",
                     fmt::format("names {}, for which there is no tensor: what was trained of {} "
                                 "is not in the file",
                                 list(missing), missing.size() == 1 ? "it" : "them"))
      .remedy = Remedy::by_hand;
}

void check(RuleContext& context) {
  const Subject& subject = context.subject();
  if (!subject.parsed_config || subject.parts.pairs.empty()) return;
  const AdapterConfig& config = *subject.parsed_config;
  report_unsaved(context);
  if (config.target_modules.empty() && config.target_regex.empty() &&
      config.target_parameters.empty())
    return;  // CFG001
  const TargetReading targets = TargetReader(subject).run();
  if (targets.problem)
    context.report_config("target_modules", fmt::format("{} {}", in_quotes(config.target_regex),
                                                        targets.problem->text()));
  report_unused(context, "target_modules", targets.unused_modules);
  report_unused(context, "target_parameters", targets.unused_parameters);
  if (chosen(context, engines::peft).empty()) report_unnamed(context, targets);  // else PFT012
}

}  // namespace

const Rule cfg005_config_without_tensors = {
    .id = "CFG005",
    .name = "config-without-tensors",
    .cause = &cause::config_without_tensors,
    .severity = Severity::warning,
    .what =
        "target_modules, target_parameters or modules_to_save names a module that has no tensor, "
        "or a tensor's module is named by none, or target_modules is an expression that cannot be "
        "evaluated.",
    .why =
        "Either the module was not trained (the gpt-oss notebooks on 4-bit models named the "
        "experts and saved attention alone), or its tensors are lost. SGLang chooses its buffers "
        "by target_modules: experts named by one of gate_up and down only are not applied at all.",
    .fix = "Check the targets of the training against what was saved; name what the file holds.",
    .remedy = Remedy::rewrite,
    .source = "unsloth issues 3405 and 4193, PR 6936; SGLang issue 32376",
    .breaks = {.change = "remove every expert tensor, with gate_proj, up_proj, down_proj named",
               .apply = [](Specimen& specimen) { remove_tensors(specimen, ".experts."); }},
    .check = check,
};

}  // namespace moelora
