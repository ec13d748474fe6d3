#include <fmt/core.h>

#include <algorithm>

#include "lib/check/define_rule.h"
#include "lib/check/name_groups.h"
#include "lib/check/rule_context.h"
#include "lib/check/served_deltas.h"
#include "lib/check/specimen.h"
#include "lib/compare/served_difference.h"
#include "lib/model/base_model.h"

namespace moelora {
namespace {

std::string error_text(const WrongDeltas& wrong) {
  switch (wrong.kind) {
    case WrongDeltas::Kind::lost:
      return "nothing of it is added";
    case WrongDeltas::Kind::untrained:
      return "something is added that was never trained";
    case WrongDeltas::Kind::not_finite:
      return "what is added is not finite";
    case WrongDeltas::Kind::off:
      break;
  }
  const std::string least = fmt::format("{:.2g}", wrong.least),
                    most = fmt::format("{:.2g}", wrong.most);
  return fmt::format("what is added is off by {} of the delta's norm",
                     least == most ? least : least + " to " + most);
}

std::string reason_text(const WrongDeltas& wrong) {
  std::string out;
  for (const Rule* rule : wrong.rules)
    out += fmt::format("{}{} {}", out.empty() ? ": " : ", ", rule->id, rule->name);
  if (!wrong.defect.empty()) out += fmt::format("; {}", wrong.defect);
  return out.empty() ? "; no rule says why" : out;
}

// No more than the rules that say why: what was read in a server's code and never run is a warning.
Severity severity_of(const WrongDeltas& wrong) {
  if (wrong.rules.empty() || !wrong.defect.empty()) return Severity::error;
  Severity out = Severity::warning;
  for (const Rule* rule : wrong.rules) out = std::max(out, rule->severity);
  return out;
}

void check_run(RuleContext& context, const EngineRun& run, size_t adapter, const Deltas& meant) {
  const Deployment& deployment = context.deployment();
  const auto blocks = served_blocks(context.subject(), *deployment.base, run);
  const auto deltas = served_differences(meant, deployment.base->spec, blocks, deployment.threads);
  const auto groups =
      wrong_by_reason(deltas, meant, context.subject(), run.plan->adapters[adapter]);
  for (const WrongDeltas& wrong : groups) {
    Finding& finding = context.report(
        {wrong.tensors.begin(), wrong.tensors.end()},
        fmt::format("{} ({}): {}{}", places_text(wrong.keys),
                    pluralized(wrong.keys.size(), "delta"), error_text(wrong), reason_text(wrong)));
    finding.severity = severity_of(wrong);
    finding.engine = run.choice.label();
  }
}

void check(RuleContext& context) {
  const Deployment& deployment = context.deployment();
  const size_t adapter = context.adapter();
  std::string why;
  std::optional<Meaning> meant;
  for (const EngineRun& run : deployment.engines) {
    if (!has_known_kernels(*run.choice.engine) || !is_served(run, adapter)) continue;
    if (!meant) meant = meaning_of(context.subject(), deployment.base->spec, why);
    if (!meant) return;  // NUM003 says so
    check_run(context, run, adapter, meant->deltas);
  }
}

}  // namespace

const Rule num002_engine_computes_other = {
    .id = "NUM002",
    .name = "engine-computes-other",
    .needs_base = true,
    .needs_values = true,
    .numeric = true,
    .what = "A chosen server computes something else than the adapter means.",
    .why =
        "Servers lose a scale, pair the wrong columns, keep one expert's factor for all, cut what "
        "does not fit or leave a module out, and answer fluently. What every rank holds after the "
        "load is worked out, bit for bit, and what its kernels make of that is compared with "
        "scale B A of the adapter: the finding says where, by how much of the delta's norm, and "
        "which rules say why. What rounding to the server's type explains is left out.",
    .fix = "Serve it with another release or server, or merge the adapter into the base model.",
    .remedy = Remedy::for_engine,
    .source = "the buffers that SGLang and vLLM held (oracles), bit for bit; SGLang forward runs",
    .breaks = {.change = "set use_rslora, and ask with --numeric",
               .engine = "vllm@0.29",
               .config = {{"use_rslora", "true"}},
               .apply = [](Specimen& specimen) { specimen.numeric = true; }},
    .implies = {"VLM010"},
    .check = check,
};

}  // namespace moelora
