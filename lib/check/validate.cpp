#include "lib/check/validate.h"

#include <fmt/core.h>

#include <algorithm>
#include <filesystem>

#include "lib/adapter/dialect.h"
#include "lib/base/progress_meter.h"
#include "lib/check/add_repairs.h"
#include "lib/check/forward.h"
#include "lib/io/input_watch.h"
#include "lib/model/base_model.h"
#include "lib/model/family.h"

namespace moelora {
namespace {

namespace fs = std::filesystem;

// What changed-file lists of pre-commit name.
std::string adapter_path(const std::string& given) {
  const fs::path path(given);
  if (path.filename() != "adapter_config.json") return given;
  const std::string folder = path.parent_path().string();
  return folder.empty() ? "." : folder;
}

std::string named_base(const Subject& subject) {
  const Json* name = subject.config.find("base_model_name_or_path");
  return name != nullptr && name->is(Json::Kind::string) ? name->as_string() : "";
}

void find_named(const std::string& name, const LoadOptions& load, Deployment& out) {
  try {
    out.base = find_named_base(name, load.model_specs, load.follow_base, load.links);
  } catch (const UnknownFamily& error) {
    out.base_error = error;
    out.base_class = error.architecture;
  } catch (const MachineError&) {
    throw;
  } catch (const Error& error) {
    out.base_error = error;
  }
  out.name = out.base ? out.base->origin : name;
}

void open_given(const LoadOptions& load, Deployment& out) try {
  out.base = open_base(load.base, load.model_specs, load.links);
} catch (const UnknownFamily& error) {
  out.base_error = error;
  out.base_class = error.architecture;
}

// One name, or one folder whatever it is called.
bool is_same_base(const Deployment& a, const Deployment& b) {
  if (a.name == b.name) return true;
  std::error_code ignored;
  return a.base && b.base && !a.base->folder.empty() && !b.base->folder.empty() &&
         fs::equivalent(a.base->folder, b.base->folder, ignored);
}

// One deployment, or one for each base that the adapters name.
std::vector<Deployment> deployments_of(std::vector<Subject> adapters, const LoadOptions& load) {
  std::vector<Deployment> out;
  if (!load.base.empty()) {
    open_given(load, out.emplace_back());
    out.front().adapters = std::move(adapters);
    return out;
  }
  for (Subject& adapter : adapters) {
    Deployment mine;
    if (const std::string name = named_base(adapter); !name.empty()) find_named(name, load, mine);
    auto at = std::find_if(out.begin(), out.end(),
                           [&](const Deployment& other) { return is_same_base(other, mine); });
    if (at == out.end()) at = out.insert(at, std::move(mine));
    at->adapters.push_back(std::move(adapter));
  }
  return out;
}

// What names no part of an adapter must be right even where nothing needs it.
void check_named(const LoadOptions& load) {
  dialect_named(load.from, Option::from);
  for (const std::string& path : load.model_specs) parse_family(read_json_file(path), path);
}

// What is compared is what it means: the adapter at `path` put into PEFT's form. nullopt for one
// that is in it. `notes` then say how it was read.
std::optional<Subject> translated(const std::string& path, const ValidateRequest& request,
                                  const std::optional<BaseModel>& base,
                                  std::vector<std::string>& notes) {
  const LoadOptions& load = request.subject.load;
  AdapterFiles files = open_adapter(path, load.input(), load.from);
  translate(files, base ? &base->spec : nullptr);
  if (files.as_on_disk()) return std::nullopt;
  for (const std::string& note : files.notes) notes.push_back(path + ": " + note);
  Subject out = open_subject(path, load.input());
  out.has_config = true;
  out.config = files.config.json;
  out.own_names = std::move(files.own_names);
  out.files = {{out.main_file, std::move(files.tensors), nullptr}};
  out.own_files = {out.main_file};
  out.problems.clear();
  return out;
}

SubjectOptions without_values(SubjectOptions options) {
  options.values = false;
  return options;
}

// No rule looks at the source, but it must be readable.
Subject source_of(const ValidateRequest& request, const std::optional<BaseModel>& base,
                  std::vector<std::string>& notes) {
  const std::string path = adapter_path(request.source);
  auto in_peft = translated(path, request, base, notes);
  Subject out = in_peft ? std::move(*in_peft) : open_subject(path, request.subject.load.input());
  if (!out.problems.empty()) throw out.problems.front().error;
  interpret(out, base, without_values(request.subject));
  if (out.config_error) throw *out.config_error;
  return out;
}

// For its comparison with the source. What cannot be read of PEFT's own form is said by the rules
// of its files.
void translate_adapter(const ValidateRequest& request, Subject& adapter,
                       std::vector<std::string>& notes) try {
  auto in_peft = translated(adapter_path(adapter.given), request, adapter.base, notes);
  if (!in_peft) return;
  interpret(*in_peft, adapter.base, without_values(request.subject));
  adapter.translated = std::make_shared<const Subject>(std::move(*in_peft));
} catch (const MachineError&) {
  throw;
} catch (const Error& error) {
  if (adapter.dialect != nullptr) adapter.untranslated = error;
}

void run_forwards(const ValidateRequest& request, Deployment& deployment) {
  if (!request.forward) {
    for (Subject& adapter : deployment.adapters)
      adapter.forward_not_run = "left out, as was asked for";
    return;
  }
  ForwardCheckOptions options;
  options.where = open_device(request.device);
  options.threads = request.subject.threads;
  options.job = request.job;
  for (Subject& adapter : deployment.adapters) run_forward(adapter, *deployment.source, options);
}

// Reads meaning into the files, and plans.
void fill(const ValidateRequest& request, Deployment& out, std::vector<std::string>& notes) {
  out.options = request.options;
  out.load = request.subject.load;
  if (out.base) {
    if (out.load.base.empty()) {
      notes.push_back(named_base_note(*out.base));
      out.load.base = named_base(out.adapters.front());
    }
    std::string note;
    out.base_headers = read_base_headers(*out.base, note);
    if (!note.empty()) notes.push_back(note);
  }
  for (Subject& adapter : out.adapters) {
    request.job.check();
    interpret(adapter, out.base, request.subject);
  }
  out.numeric = request.numeric;
  out.threads = request.subject.threads;
  if (!request.source.empty()) {
    out.source = source_of(request, out.base, notes);
    for (Subject& adapter : out.adapters) translate_adapter(request, adapter, notes);
    run_forwards(request, out);
  }
  for (const EngineChoice& choice : request.engines)
    out.engines.push_back({choice, request.options, std::nullopt, ""});
  begin_stage("planning", request.job);
  plan_engines(out);
}

// The results of the next deployment behind those of the ones before it; its notes name it.
void append(RuleResults results, const Deployment& deployment, ValidationReport& out) {
  const size_t index = out.deployments.size();
  const auto titled = [&](std::string text) {
    return deployment.name.empty() ? text : fmt::format("{}: {}", deployment.name, text);
  };
  for (Finding& finding : results.findings) {
    finding.deployment = index;
    out.results.findings.push_back(std::move(finding));
  }
  for (Skipped& skipped : results.skipped)
    out.results.skipped.push_back({skipped.what, titled(skipped.why)});
  for (std::string& note : results.notes) out.results.notes.push_back(titled(note));
  for (Served& served : results.served) {
    served.deployment = index;
    out.results.served.push_back(std::move(served));
  }
  out.results.rules_run += results.rules_run;
}

void judge(const ValidateRequest& request, Deployment deployment, ValidationReport& out) {
  std::vector<std::string> notes;
  fill(request, deployment, notes);
  begin_stage("checking", request.job);
  RuleResults results = run_rules(deployment, request.job);
  begin_stage("trying fixes", request.job);
  add_repairs(deployment, results.findings, request.job);
  add_forward_notes(deployment.adapters, results);
  results.notes.insert(results.notes.begin(), notes.begin(), notes.end());
  for (Waived& waived : take_waived(results, deployment, request.waivers)) {
    waived.finding.deployment = out.deployments.size();
    out.waived.push_back(std::move(waived));
  }
  append(std::move(results), deployment, out);
  out.deployments.push_back(std::move(deployment));
}

}  // namespace

ValidationReport validate(const ValidateRequest& request) {
  const InputWatch watch;
  check_named(request.subject.load);
  std::vector<Subject> adapters;
  for (const std::string& given : request.adapters) {
    request.job.check();
    adapters.push_back(open_subject(adapter_path(given), request.subject.load.input()));
  }
  std::vector<Deployment> all = deployments_of(std::move(adapters), request.subject.load);
  for (Deployment& deployment : all)
    if (deployment.name.empty()) deployment.name = "no known base model";
  if (all.size() == 1) all.front().name.clear();
  ValidationReport out;
  out.deployments.reserve(all.size());
  for (Deployment& deployment : all) judge(request, std::move(deployment), out);
  watch.check();
  return out;
}

}  // namespace moelora
