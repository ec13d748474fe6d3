#include "lib/diff/served_model.h"

#include "lib/adapter/adapter_file.h"
#include "lib/adapter/tensor_name.h"
#include "lib/check/engine_findings.h"
#include "lib/check/served_deltas.h"
#include "lib/check/validate.h"
#include "lib/compare/served_pairs.h"

namespace moelora {
namespace {

ValidateRequest request_of(const ScoreFilesOptions& options,
                           const std::vector<std::string>& engines) {
  ValidateRequest out;
  out.adapters = {options.adapter};
  for (const std::string& engine : engines) out.engines.push_back(parse_engine(engine));
  for (const std::string& pair : options.server_pairs)
    set_server_option(out.options, pair, out.engines);
  out.subject.load = options;
  out.subject.threads = options.threads;
  out.job = options.job;
  return out;
}

void check_read(const Deployment& deployment, const ScoreFilesOptions& options) {
  const Subject& subject = deployment.adapters.front();
  if (!subject.loaded) {
    if (subject.adapter_error) throw *subject.adapter_error;
    load_adapter(options.adapter, options);  // throws what is wrong with its files
    throw Error(subject.given, "could not be read as an adapter");
  }
  if (!deployment.base)
    throw deployment.base_error ? *deployment.base_error
                                : Error(subject.given, "has no base model to be computed with");
}

// Why a server computes nothing of the adapter; "" where it does.
std::string why_not_served(const EngineRun& run) {
  const AdapterPlan* plan = run.plan_of(0);
  if (plan == nullptr)
    return run.not_planned.empty() ? "what it does with an adapter is not known" : run.not_planned;
  if (const PlanEvent* refusal = plan->first_refusal())
    return "refused: " + refusal_text(*refusal->refusal);
  if (!is_served(run, 0)) return "the server does not start with these options";
  if (!has_known_kernels(*run.choice.engine))
    return "what its kernels make of an adapter is not known";
  return "";
}

// What is beside the deltas and is not lost: PEFT takes DoRA's magnitudes and saved modules.
std::map<std::string, Extra> used_extras(const ModelLora& meant, const AdapterPlan& plan) {
  std::map<std::string, Extra> out;
  for (const TensorFate& fate : plan.fates) {
    const auto extra = meant.extras.find(std::string(without_peft_prefix(fate.tensor)));
    if (fate.fate == Fate::used && extra != meant.extras.end()) out.insert(*extra);
  }
  return out;
}

// Extras that a forward computes with and no server's buffers hold.
bool counts(const Extra& extra) {
  return extra.kind == ExtraKind::saved_module || extra.kind == ExtraKind::lora_bias ||
         extra.kind == ExtraKind::magnitude || extra.kind == ExtraKind::base_weight;
}

}  // namespace

PlannedAdapter::PlannedAdapter(const ScoreFilesOptions& options,
                               const std::vector<std::string>& engines)
    : report_(validate(request_of(options, engines))) {
  check_read(deployment(), options);
  meant_ = lora_of(subject().loaded->adapter, base().spec);
}

ServedModel served_model(const PlannedAdapter& adapter, const EngineRun& server) {
  ServedModel out;
  out.engine = server.choice.label();
  out.not_served = why_not_served(server);
  if (is_later(server.choice)) out.notes.push_back(out.engine + " " + later_text(server.choice));
  if (!out.not_served.empty()) return out;
  out.blocks = served_blocks(adapter.subject(), adapter.base(), server);
  out.lora = {served_pairs(out.blocks, adapter.base().spec),
              used_extras(adapter.meant(), *server.plan_of(0))};
  return out;
}

std::vector<std::string> extras_not_held(const ModelLora& meant, const ModelLora& served) {
  std::vector<std::string> out;
  for (const auto& [name, extra] : meant.extras)
    if (counts(extra) && served.extras.count(name) == 0) out.push_back(name);
  return out;
}

}  // namespace moelora
