#include "tests/check/vllm_deployment.h"

#include <fmt/core.h>

#include <map>

#include "lib/model/base_model.h"

namespace moelora::test {
namespace {

BaseModel base_of(const VllmRun& run) {
  const VllmBase& base = vllm_base(run.family);
  return BaseModel{base.spec, base.config, "", ""};
}

const Subject& subject_of(const VllmRun& run) {
  static std::map<std::string, Subject> subjects;
  const auto [at, fresh] = subjects.try_emplace(run.folder());
  if (!fresh) return at->second;
  at->second = open_subject(run.folder());
  interpret(at->second, base_of(run), {});
  return at->second;
}

}  // namespace

RuleResults check_for_vllm(const VllmRun& run, const ServerOptions& options) {
  Deployment deployment;
  deployment.base = base_of(run);
  deployment.options = options;
  deployment.numeric = true;
  deployment.threads = 1;
  deployment.adapters.push_back(subject_of(run));
  deployment.engines.push_back({parse_engine("vllm@" + run.version), options, {}, {}, {}});
  plan_engines(deployment);
  return run_rules(deployment);
}

const RuleResults& check_for_vllm(const VllmRun& run) {
  static std::map<std::string, RuleResults> known;
  const auto [at, fresh] = known.try_emplace(fmt::format(
      "{} {} {} {} {} {}", run.version, run.family, run.adapter, run.mode, run.tp, run.max_rank));
  if (fresh) at->second = check_for_vllm(run, run.options());
  return at->second;
}

}  // namespace moelora::test
