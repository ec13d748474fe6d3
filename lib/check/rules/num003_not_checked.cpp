#include <fmt/core.h>

#include <algorithm>
#include <map>

#include "lib/check/define_rule.h"
#include "lib/check/engine_findings.h"
#include "lib/check/name_groups.h"
#include "lib/check/rule_context.h"
#include "lib/check/served_deltas.h"
#include "lib/check/specimen.h"

namespace moelora {
namespace {

// What an adapter means besides deltas; "" for a factor of an embedding, or the base's own.
std::string_view extra_noun(ExtraKind kind) {
  switch (kind) {
    case ExtraKind::embedding_factor:
    case ExtraKind::base_weight:
      return "";
    case ExtraKind::lora_bias:
      return "LoRA bias tensor";
    case ExtraKind::magnitude:
      return "DoRA magnitude vector";
    case ExtraKind::saved_module:
      return "saved weight";
    case ExtraKind::other:
      break;
  }
  return "other tensor";
}

class NotChecked {
 public:
  explicit NotChecked(RuleContext& context)
      : context_(context), deployment_(context.deployment()) {}

  void run() {
    for (const EngineRun& run : deployment_.engines) look_at(run);
    if (deployment_.base_error && deployment_.engines.empty()) look_at_base();
    if (deployment_.numeric) look_at_numbers();
  }

 private:
  Finding& add(const EngineRun* run, std::string message, std::string fix) {
    Finding& finding = context_.report(std::move(message));
    if (run != nullptr) finding.engine = run->choice.label();
    finding.fix = std::move(fix);
    return finding;
  }

  // "base/config.json:12:16: unknown model type 'qwen3'; its class is Qwen3ForCausalLM".
  std::string base_error_text() const {
    std::string out = deployment_.base_error->what();
    if (!deployment_.base_class.empty()) out += "; its class is " + deployment_.base_class;
    return out;
  }

  // An unknown base, and no server to name beside it: an error where the user gave that base.
  void look_at_base() {
    Finding& finding = add(
        nullptr, fmt::format("the adapter was compared with no base model: {}", base_error_text()),
        deployment_.base_error->hint());
    if (!deployment_.load.base.empty()) finding.severity = Severity::error;
  }

  // A plan that was not made. Without a base nothing was judged; of one that is not known that is
  // said as an error of its own.
  void look_at_plan(const EngineRun& run) {
    const bool unknown = deployment_.base_error.has_value(), none = !deployment_.base && !unknown;
    const std::string why = unknown ? base_error_text() : run.not_planned;
    Finding& finding =
        add(&run, fmt::format("what {} does with the adapter: {}", run.choice.label(), why),
            none ? "Name the base model that it serves: --base."
                 : (unknown ? deployment_.base_error->hint() : ""));
    finding.severity = Severity::error;
    finding.unjudged = none;
  }

  void look_at(const EngineRun& run) {
    const Engine& engine = *run.choice.engine;
    if (is_later(run.choice))
      add(&run, fmt::format("{} {}", run.choice.label(), later_text(run.choice)),
          fmt::format("Check for {}@{}, and read what later releases say of LoRA.", engine.id,
                      engine.releases.back().version));
    if (!run.not_planned.empty() && !run.unreadable) look_at_plan(run);
    if (run.plan && !run.plan->not_known.empty())
      add(&run,
          fmt::format("what {} does with the adapter: {}", run.choice.label(), run.plan->not_known),
          "Read in the server's documentation whether this class takes LoRA.")
          .severity = Severity::error;
    if (deployment_.numeric && !has_known_kernels(engine))
      add(&run, fmt::format("what {} computes: its buffers are not known here", run.choice.label()),
          "Compare its outputs with those of another server: lora-diff logprobs.");
  }

  void look_at_numbers() {
    if (!deployment_.source && deployment_.engines.empty())
      add(nullptr, "--numeric computed nothing: no server and no source to compare with",
          "Name a server with --engine and --base, or the adapter this was made from with "
          "--source.");
    for (size_t i = 0; i < deployment_.adapters.size(); ++i) look_at_numbers(i);
  }

  // Where a server computes something of the adapter: what of it NUM002 did not compare.
  void look_at_numbers(size_t adapter) {
    const Subject& subject = deployment_.adapters[adapter];
    const auto& engines = deployment_.engines;
    if (std::none_of(engines.begin(), engines.end(), [&](const EngineRun& run) {
          return has_known_kernels(*run.choice.engine) && is_served(run, adapter);
        }))
      return;
    if (subject.values.empty() && !subject.tensors.empty())
      return add_of(adapter, {}, "what a server computes: --no-values leaves the values out");
    std::string why;
    const auto meant = meaning_of(subject, deployment_.base->spec, why);
    if (!meant)
      return add_of(adapter, {},
                    fmt::format("what a server computes was compared with nothing: "
                                "what the adapter means is not known: {}",
                                why));
    look_at_extras(adapter, meant->adapter);
    look_at_types(adapter, meant->deltas);
  }

  void add_of(size_t adapter, std::vector<std::string> names, std::string message) {
    Finding& finding = context_.report(std::move(names), std::move(message));
    finding.adapter = adapter;
    finding.file = deployment_.adapters[adapter].main_file;
    finding.fix.clear();
  }

  void look_at_extras(size_t adapter, const Adapter& meant) {
    std::map<std::string_view, std::vector<std::string>> by_noun;
    for (const auto& [name, extra] : meant.extras)
      if (const std::string_view noun = extra_noun(extra.kind); !noun.empty())
        by_noun[noun].push_back(name);
    for (auto& [noun, names] : by_noun) {
      std::string message = fmt::format("{}: no delta; what a server makes of it was not compared",
                                        pluralized(names.size(), noun));
      add_of(adapter, std::move(names), std::move(message));
    }
  }

  void look_at_types(size_t adapter, const Deltas& meant) {
    std::vector<std::string> names;
    for (const auto& [key, delta] : meant)
      if (!is_float(delta.a.dtype()) || !is_float(delta.b.dtype())) names.push_back(to_string(key));
    if (names.empty()) return;
    std::string message = fmt::format(
        "{} with factors that are not floats: what a server makes of them was not compared",
        pluralized(names.size(), "delta"));
    add_of(adapter, std::move(names), std::move(message));
  }

  RuleContext& context_;
  const Deployment& deployment_;
};

}  // namespace

const Rule num003_not_checked = {
    .id = "NUM003",
    .name = "not-checked",
    .severity = Severity::warning,
    .whole_deployment = true,
    .what = "Something that was asked for could not be checked.",
    .why =
        "A check that was not made must not pass for one that found nothing: a release later than "
        "the rules, a server without a base model, a sum that --numeric could not work out. Rules "
        "that need more than was given are listed below the findings.",
    .fix = "Give what is missing.",
    .source = "lora-validate itself",
    .breaks = {.change = "check it for a server without naming the base model",
               .engine = "vllm",
               .apply = [](Specimen& specimen) { specimen.without_base = true; }},
    .check = [](RuleContext& context) { NotChecked(context).run(); },
};

}  // namespace moelora
