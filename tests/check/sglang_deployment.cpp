#include "tests/check/sglang_deployment.h"

#include <algorithm>
#include <map>

#include "lib/engine/sglang/causes.h"
#include "lib/model/base_model.h"
#include "tests/engine/sglang_faults.h"

namespace moelora::test {
namespace {

BaseModel base_of(const OracleRecord& record) {
  const bool q40 = record.text("adapter").ends_with("_q40");
  const OracleBase& base = sglang_base(record.family, q40 ? "q40" : "");
  BaseModel out;
  out.spec = base.spec;
  out.config = base.config;
  return out;
}

ServerOptions options_of(const std::string& setting) {
  ServerOptions out;
  if (setting == "R8") out.max_lora_rank = 8;
  if (setting.starts_with("tp2")) out.tp = 2;
  if (setting.starts_with("tp2ep2")) out.ep = 2;
  return out;
}

const Subject& subject_of(const OracleRecord& record) {
  static std::map<std::string, Subject> subjects;
  const std::string folder = sglang_folder(record.family, record.text("adapter"));
  const std::string key = record.family + folder;
  if (const auto at = subjects.find(key); at != subjects.end()) return at->second;
  Subject& subject = subjects[key] = open_subject(folder);
  interpret(subject, base_of(record), {});
  return subject;
}

}  // namespace

const RuleResults& check_for_sglang(const OracleRecord& record) {
  static std::map<const OracleRecord*, RuleResults> known;
  const auto [at, fresh] = known.try_emplace(&record);
  if (!fresh) return at->second;
  Deployment deployment;
  deployment.base = base_of(record);
  deployment.options = options_of(record.text("setting"));
  deployment.numeric = true;
  deployment.threads = 1;
  deployment.adapters.push_back(subject_of(record));
  deployment.engines.push_back({parse_engine("sglang@0.5.18"), deployment.options, {}, {}, {}});
  plan_engines(deployment);
  return at->second = run_rules(deployment);
}

bool has_split_a(const OracleRecord& record) {
  if (!record.family.starts_with("gpt_oss")) return false;
  if (silent_faults(record).count(&sglang::cause::one_sided_experts) != 0) return false;
  const auto& tensors = subject_of(record).tensors;
  const bool tied = record.text("adapter").find("tied_a") != std::string::npos;
  return !tied && std::any_of(tensors.begin(), tensors.end(), [](const auto& entry) {
    const std::string& name = entry.first;
    return name.find("experts") != std::string::npos &&
           (name.find("up_proj.lora_A") != std::string::npos ||
            name.find("w3.lora_A") != std::string::npos) &&
           name.find("gate_up_proj") == std::string::npos && entry.second.elements() > 0;
  });
}

}  // namespace moelora::test
