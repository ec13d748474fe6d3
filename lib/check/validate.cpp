#include "lib/check/validate.h"

#include <fmt/core.h>

#include <algorithm>
#include <filesystem>

#include "lib/adapter/adapter_search.h"
#include "lib/adapter/dialect.h"
#include "lib/check/judge.h"
#include "lib/check/many/judge_alone.h"
#include "lib/io/input_watch.h"
#include "lib/model/family.h"

namespace moelora {
namespace {

namespace fs = std::filesystem;

struct Planned {
  Deployment deployment;
  OpenedBase* base = nullptr;
};

// One name, or one folder whatever it is called.
bool is_same_base(const Deployment& a, const Deployment& b) {
  if (a.name == b.name) return true;
  std::error_code ignored;
  return a.base && b.base && !a.base->folder.empty() && !b.base->folder.empty() &&
         fs::equivalent(a.base->folder, b.base->folder, ignored);
}

// Without adapters yet.
Planned deployment_for(const Subject& adapter, OpenedBases& bases, bool given) {
  Planned out;
  out.base = &bases.of(adapter);
  out.base->give_to(out.deployment);
  if (!given)
    out.deployment.name = out.deployment.base ? out.deployment.base->origin : named_base(adapter);
  return out;
}

// One deployment, or one for each base that the adapters name.
std::vector<Planned> deployments_of(std::vector<Subject> adapters, const LoadOptions& load,
                                    OpenedBases& bases) {
  std::vector<Planned> out;
  for (Subject& adapter : adapters) {
    Planned mine = deployment_for(adapter, bases, !load.base.empty());
    auto at = std::find_if(out.begin(), out.end(), [&](const Planned& other) {
      return is_same_base(other.deployment, mine.deployment);
    });
    if (at == out.end()) at = out.insert(at, std::move(mine));
    at->deployment.adapters.push_back(std::move(adapter));
  }
  return out;
}

// What names no part of an adapter must be right even where nothing needs it.
void check_named(const LoadOptions& load) {
  dialect_named(load.from, Option::from);
  for (const std::string& path : load.model_specs) parse_family(read_json_file(path), path);
}

// The results of the next deployment behind those of the ones before it; its notes name it.
void append(Judged judged, ValidationReport& out) {
  const size_t index = out.deployments.size();
  const std::string& name = judged.deployment.name;
  const auto titled = [&](std::string text) {
    return name.empty() ? text : fmt::format("{}: {}", name, text);
  };
  for (Finding& finding : judged.results.findings) {
    finding.deployment = index;
    out.results.findings.push_back(std::move(finding));
  }
  for (Skipped& skipped : judged.results.skipped)
    out.results.skipped.push_back({skipped.what, titled(skipped.why)});
  for (std::string& note : judged.results.notes) out.results.notes.push_back(titled(note));
  for (Served& served : judged.results.served) {
    served.deployment = index;
    out.results.served.push_back(std::move(served));
  }
  for (Waived& waived : judged.waived) {
    waived.finding.deployment = index;
    out.waived.push_back(std::move(waived));
  }
  out.results.rules_run += judged.results.rules_run;
  out.deployments.push_back(std::move(judged.deployment));
}

ValidationReport judge_together(const ValidateRequest& request,
                                const std::vector<std::string>& paths, OpenedBases& bases) {
  std::vector<Subject> adapters;
  for (const std::string& path : paths) {
    request.job.check();
    adapters.push_back(open_subject(path, request.subject.load.input()));
  }
  std::vector<Planned> all = deployments_of(std::move(adapters), request.subject.load, bases);
  for (Planned& each : all)
    if (each.deployment.name.empty()) each.deployment.name = "no known base model";
  if (all.size() == 1) all.front().deployment.name.clear();
  ValidationReport out;
  out.deployments.reserve(all.size());
  for (Planned& each : all) append(judge(request, std::move(each.deployment), *each.base), out);
  return out;
}

}  // namespace

ValidationReport validate(const ValidateRequest& request) {
  const InputWatch watch;
  const LoadOptions& load = request.subject.load;
  check_named(load);
  const FoundAdapters found =
      find_adapters(request.adapters, request.recursive, load.links, request.job);
  OpenedBases bases(load);
  ValidationReport out = request.alone ? judge_alone(request, found, bases)
                                       : judge_together(request, found.paths, bases);
  out.results.notes.insert(out.results.notes.begin(), found.notes.begin(), found.notes.end());
  watch.check();
  return out;
}

}  // namespace moelora
