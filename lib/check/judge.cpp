#include "lib/check/judge.h"

#include <fmt/core.h>

#include <filesystem>

#include "lib/adapter/adapter_search.h"
#include "lib/adapter/dialect.h"
#include "lib/base/progress_meter.h"
#include "lib/check/add_repairs.h"
#include "lib/check/forward.h"

namespace moelora {
namespace {

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
  const std::string path = find_adapters({request.source}).paths.front();
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
  auto in_peft = translated(adapter.given, request, adapter.base, notes);
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
void fill(const ValidateRequest& request, OpenedBase& base, Deployment& out,
          std::vector<std::string>& notes) {
  out.options = request.options;
  out.load = request.subject.load;
  if (out.base) {
    if (out.load.base.empty()) {
      notes.push_back(named_base_note(*out.base));
      out.load.base = named_base(out.adapters.front());
    }
    std::string note;
    out.base_headers = base.headers(note);
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

}  // namespace

Judged judge(const ValidateRequest& request, Deployment deployment, OpenedBase& base) {
  std::vector<std::string> notes;
  Judged out;
  fill(request, base, deployment, notes);
  begin_stage("checking", request.job);
  out.results = run_rules(deployment, request.job);
  begin_stage("trying fixes", request.job);
  add_repairs(deployment, out.results.findings, request.job);
  add_forward_notes(deployment.adapters, out.results);
  out.results.notes.insert(out.results.notes.begin(), notes.begin(), notes.end());
  out.waived = take_waived(out.results, deployment, request.waivers);
  out.deployment = std::move(deployment);
  return out;
}

}  // namespace moelora
