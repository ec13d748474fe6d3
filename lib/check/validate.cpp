#include "lib/check/validate.h"

#include <fmt/core.h>

#include <filesystem>
#include <set>

#include "lib/base/utf8.h"
#include "lib/check/forward.h"
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

std::optional<BaseModel> base_of(const std::vector<Subject>& adapters, const LoadOptions& load,
                                 std::vector<std::string>& notes) {
  if (!load.base.empty()) return open_base(load.base, load.model_specs);
  std::set<std::string> names;
  for (const Subject& adapter : adapters)
    if (std::string name = named_base(adapter); !name.empty()) names.insert(std::move(name));
  if (names.size() > 1)
    notes.push_back(fmt::format(
        "the adapters name {} base models ({}, {} ...), a server has one: "
        "checked without; name it with --base",
        names.size(), moelora::quoted(*names.begin()), moelora::quoted(*names.rbegin())));
  return base_or_hint("", names.size() == 1 ? *names.begin() : "", load.model_specs, notes);
}

// What names no part of an adapter must be right even where nothing needs it.
void check_named(const LoadOptions& load) {
  if (!load.from.empty()) layout_by_id(load.from, Option::from);
  for (const std::string& path : load.model_specs) parse_family(read_json_file(path), path);
}

// No rule looks at the source, but it must be readable.
Subject source_of(const ValidateRequest& request, const std::optional<BaseModel>& base) {
  Subject out = open_subject(adapter_path(request.source));
  if (!out.problems.empty()) throw out.problems.front().error;
  SubjectOptions options = request.subject;
  options.values = false;
  interpret(out, base, options);
  if (out.config_error) throw *out.config_error;
  return out;
}

void run_forwards(const ValidateRequest& request, Deployment& deployment) {
  ForwardCheckOptions options;
  options.where = open_device(request.device);
  options.threads = request.subject.threads;
  options.job = request.job;
  for (Subject& adapter : deployment.adapters) run_forward(adapter, *deployment.source, options);
}

Deployment open(const ValidateRequest& request, std::vector<std::string>& notes) {
  Deployment out;
  for (const std::string& given : request.adapters) {
    request.job.check();
    out.adapters.push_back(open_subject(adapter_path(given)));
  }
  out.base = base_of(out.adapters, request.subject.load, notes);
  out.options = request.options;
  if (out.base) {
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
    out.source = source_of(request, out.base);
    run_forwards(request, out);
  }
  for (const EngineChoice& choice : request.engines)
    out.engines.push_back({choice, request.options, std::nullopt, ""});
  plan_engines(out);
  return out;
}

}  // namespace

ValidationReport validate(const ValidateRequest& request) {
  check_named(request.subject.load);
  std::vector<std::string> notes;
  ValidationReport out;
  out.deployment = open(request, notes);
  out.results = run_rules(out.deployment, request.job);
  add_forward_notes(out.deployment.adapters, out.results);
  out.results.notes.insert(out.results.notes.begin(), notes.begin(), notes.end());
  out.waived = take_waived(out.results, out.deployment, request.waivers);
  return out;
}

}  // namespace moelora
