#include "lib/moelora.h"

#include <fmt/core.h>

#include <algorithm>

#include "lib/adapter/adapter_file.h"
#include "lib/adapter/convert.h"
#include "lib/adapter/init.h"
#include "lib/base/cast.h"
#include "lib/base/nearest.h"
#include "lib/base/progress_meter.h"
#include "lib/base/utf8.h"
#include "lib/check/ignore.h"
#include "lib/check/report.h"
#include "lib/check/report_parts.h"
#include "lib/check/validate.h"
#include "lib/compare/verify_conversion.h"
#include "lib/engine/buffers.h"
#include "lib/engine/fit/deltas.h"
#include "lib/engine/fit/fit.h"
#include "lib/io/file.h"
#include "lib/model/base_model.h"

namespace moelora {
namespace {

// ---- convert ------------------------------------------------------------------------------------

// Of ConvertOptions or WriteAdapterOptions.
template <class Options>
WriteFolderOptions folder_of(const Options& o) {
  WriteFolderOptions out;
  out.output = {o.force, o.sync};
  out.weights.threads = o.threads;
  out.weights.max_shard_size = o.max_shard_size;
  out.weights.job = o.job;
  return out;
}

PlanOptions plan_of(const ConvertOptions& o) {
  PlanOptions out;
  out.to = o.to;
  out.load = o;
  out.layout.canonical_names = o.canonical_names;
  out.layout.b_order = o.out_b_order.value_or(BOrder::rank_major);
  out.layout.roles = o.out_roles.value_or(Roles::natural);
  out.threads = o.threads;
  out.dtype = o.dtype;
  return out;
}

FitOptions fit_of(const ConvertOptions& o) {
  FitOptions out{parse_engine(o.engine), {}, o.server_options, o.to, {}, o.threads};
  for (const std::string& pair : o.server_options)
    set_server_option(out.server, pair, {&out.engine, 1});
  for (const std::string& drop : o.drop) out.drop.insert(parse_drop(drop));
  return out;
}

// Without an engine there is a layout, and nothing that only an engine needs.
void check_alone(const ConvertOptions& o) {
  const Hint name_it{"name the server with ", Option::engine};
  if (o.to.empty())
    throw Error(Option::to, "is missing: nothing says what to write",
                {"say ", Option::engine, " ENGINE or ", Option::to, " LAYOUT"});
  if (!o.server_options.empty()) throw Error(Option::server_option, "requires an engine", name_it);
  if (!o.drop.empty())
    throw Error(Option::drop, "requires an engine: a layout alone drops nothing", name_it);
}

// The base that --base names is the one that the output is for, whatever the input was trained on:
// written where it is a hub name, since a folder is one of this machine.
void name_base(LoadedAdapter& input, const ConvertOptions& o) {
  if (o.base.empty() || !input.base || !is_absent(o.base)) return;
  for (AdapterConfig* config : {&input.files.config, &input.adapter.config}) {
    if (config->base_model == o.base) continue;
    if (config == &input.files.config && !config->base_model.empty())
      input.notes.push_back(fmt::format("base_model_name_or_path: {} becomes {}, as --base says",
                                        moelora::in_quotes(config->base_model),
                                        moelora::in_quotes(o.base)));
    config->base_model = o.base;
    if (config->json.is(Json::Kind::object))
      config->json.set("base_model_name_or_path", Json(std::string_view(o.base)));
  }
}

// What is converted: a path, or an adapter in memory.
struct Input {
  std::string path;                    // "" in memory
  const TensorMap* tensors = nullptr;  // and its config
  std::string_view config = {};

  AdapterFiles open(const ConvertOptions& o) const {
    if (tensors == nullptr) return open_adapter(path, o.input(), o.from);
    return adapter_in_memory(*tensors, parse_json(config, std::string(kConfigName)), o.from);
  }
};

LoadedAdapter load_input(const Input& in, const ConvertOptions& o) {
  LoadedAdapter out = load_adapter(in.open(o), o, o.dtype);
  name_base(out, o);
  begin_stage("planning", o.job);
  return out;
}

// Fitted for the engine and held against its own plan.
Conversion plan_for_engine(const Input& in, const std::string& out, const ConvertOptions& o) {
  if (o.out_b_order || o.out_roles)
    throw Error(o.out_b_order ? Option::out_b_order : Option::out_roles,
                "is the engine's to decide: it says how stacked pairs are written",
                {"leave it out, or use ", Option::to, " alone"});
  const FitOptions how = fit_of(o);
  FittedConversion made = plan_fitted(load_input(in, o), how, plan_of(o));
  check_served(made.conversion, out, how, o.max_shard_size);
  if (o.verify) verify_fit(made.meant, made.conversion.adapter, o.threads);
  return std::move(made.conversion);
}

void describe_tensors(const TensorMap& tensors, ConvertResult& out) {
  for (const auto& [name, tensor] : tensors) {
    out.tensors.push_back({name, tensor.dtype(), tensor.shape(), tensor.bytes()});
    out.bytes += tensor.bytes();
  }
}

ConvertResult convert_adapter(const Input& in, const std::string& out, const ConvertOptions& o) {
  if (o.engine.empty()) check_alone(o);
  const Conversion c = o.engine.empty() ? plan_conversion(load_input(in, o), plan_of(o))
                                        : plan_for_engine(in, out, o);
  ConvertResult result;
  result.layout = c.to != nullptr ? c.to->id : "dense";
  result.modules = module_rows(c.adapter);
  describe_tensors(c.tensors, result);
  result.config = c.config.dump() + "\n";
  result.notes = c.notes;
  result.repaired = c.changes && !c.changes->made.empty();
  o.job.check();
  if (o.dry_run) return result;
  WriteFolderOptions folder = folder_of(o);
  if (o.verify)
    folder.verify = [&](const Conversion& conversion, const AdapterFiles& written) {
      o.job.check();
      begin_stage("verifying", o.job);
      const Verified verified = packed_verifier(in.path, o.threads)(conversion, written);
      o.job.check();
      return verified;
    };
  folder.ready = [&](const WrittenConversion& written) {
    result.verified = written.verified;
    result.same_product = written.same_product;
    result.notes.insert(result.notes.end(), written.notes.begin(), written.notes.end());
    if (o.ready) o.ready(result);
  };
  result.left_behind = write_conversion(c, out, folder).left_behind;
  return result;
}

// What says how an adapter is read or written says nothing of a server's buffers.
void check_buffer_options(const ConvertOptions& o) {
  const std::pair<Option, bool> given[] = {{Option::from, !o.from.empty()},
                                           {Option::b_order, o.read.b_order.has_value()},
                                           {Option::roles, o.read.roles.has_value()},
                                           {Option::out_b_order, o.out_b_order.has_value()},
                                           {Option::out_roles, o.out_roles.has_value()},
                                           {Option::names, o.canonical_names},
                                           {Option::dtype, o.dtype.has_value()},
                                           {Option::drop, !o.drop.empty()}};
  for (const auto& [option, is_given] : given)
    if (is_given)
      throw Error(option, fmt::format("does not go with {}: the files are read and the buffers "
                                      "written as the server does",
                                      o.to));
}

ConvertResult convert_to_buffers(const std::string& in, const std::string& out,
                                 const ConvertOptions& o) {
  check_buffer_options(o);
  begin_stage("planning", o.job);
  const BufferConversion c = plan_buffers(in, {o.to, o.engine, o.server_options, o.base,
                                               o.model_specs, rule_name, o.follow_base, o.links});
  ConvertResult result;
  result.layout = o.to;
  result.server = c.engine.label();
  result.tp_rank = c.tp_rank;
  result.notes = c.notes;
  describe_tensors(c.buffers, result);
  o.job.check();
  if (o.dry_run) return result;
  const WriteFolderOptions folder = folder_of(o);
  const auto ready = [&](const WrittenConversion& written) {
    result.verified = written.verified;
    if (o.ready) o.ready(result);
  };
  result.left_behind =
      write_buffers(c, out, {folder.output, folder.weights, o.verify, ready}).left_behind;
  return result;
}

// ---- validate -----------------------------------------------------------------------------------

std::vector<EngineChoice> choices(const std::vector<std::string>& engines) {
  std::vector<EngineChoice> out;
  for (const std::string& text : engines) {
    const EngineChoice choice = parse_engine(text);
    if (std::none_of(out.begin(), out.end(),
                     [&](const EngineChoice& c) { return c.label() == choice.label(); }))
      out.push_back(choice);
  }
  return out;
}

// A fault of what the project file says is that file's, not an option's.
template <class F>
auto of_project(const ValidateOptions& o, F&& use) {
  try {
    return use();
  } catch (const Error& error) {
    throw Error(in_file(o.project), error.text(), error.advice());
  }
}

// A tool's flags are held to this before; a program's fields are not.
int64_t counted(const char* field, int64_t value) {
  if (value < 1) throw Error(field, fmt::format("is {}, expected 1 or more", value));
  return value;
}

ServerOptions server_of(const ValidateOptions& o, const Project& project,
                        const std::vector<EngineChoice>& engines) {
  ServerOptions out;
  of_project(o, [&] {
    for (const std::string& pair : project.server_options) set_server_option(out, pair, engines);
  });
  for (const std::string& pair : o.server_options) set_server_option(out, pair, engines);
  if (o.tp) out.tp = counted("tp", *o.tp);
  if (o.ep) out.ep = counted("ep", *o.ep);
  if (o.max_lora_rank) out.max_lora_rank = counted("max_lora_rank", *o.max_lora_rank);
  if (o.max_loras) out.max_loras = counted("max_loras", *o.max_loras);
  if (o.gpu_memory) out.gpu_memory = *o.gpu_memory;
  out.compute_capability = o.compute_capability;
  return out;
}

DeviceChoice device_of(const std::string& device) {
  constexpr std::string_view kDevices[] = {"auto", "cpu", "cuda"};
  if (device == "auto") return DeviceChoice::automatic;
  if (device == "cpu") return DeviceChoice::cpu;
  if (device == "cuda") return DeviceChoice::cuda;
  throw unknown_word(at_option(Option::device), "device", device, kDevices);
}

// The options, and below them what the project file says.
ValidateRequest request_of(const std::vector<std::string>& adapters, const ValidateOptions& o) {
  if (adapters.empty())
    throw Error("adapters", "none is named", "name folders with adapter_config.json");
  if (!o.source.empty() && !o.numeric)
    throw Error(Option::source, "requires numeric checks", {"add ", Option::numeric});
  if (!o.cache.empty() && o.numeric)
    throw Error("cache",
                "keeps no verdict of numeric checks: they are of values, which it does not look at",
                {"leave out ", Option::numeric, " or the cache"});
  Project project = o.project.empty() ? Project{} : read_project(o.project);
  ValidateRequest out;
  out.adapters = adapters;
  out.recursive = o.recursive;
  out.alone = o.one_by_one || o.recursive || !o.cache.empty();
  out.cache = o.cache;
  out.engines = o.engines.empty() ? of_project(o, [&] { return choices(project.engines); })
                                  : choices(o.engines);
  out.options = server_of(o, project, out.engines);
  out.subject = {o, o.look_at_values, o.threads};
  if (out.subject.load.base.empty()) out.subject.load.base = project.base;
  out.waivers = std::move(project.waivers);
  out.numeric = o.numeric;
  out.source = o.source;
  out.device = device_of(o.device);
  out.forward = o.forward;
  out.job = o.job;
  for (const std::string& rule : o.ignore)
    out.waivers.push_back(
        {&rule_named(rule, at_option(Option::ignore)), "no reason given", "", "--ignore " + rule});
  return out;
}

Report report_of(const Validation& validation, const ReportOptions& options) {
  const ValidationReport& result = *validation.details;
  return {result.deployments, result.results, result.waived, options, result.alone};
}

}  // namespace

Adapter load(const std::string& path, const LoadOptions& options) {
  options.job.check();
  return load_adapter(path, options).adapter;
}

std::vector<double> values(const Tensor& tensor) { return read_double(tensor); }

void write(const Adapter& adapter, const std::string& out, const WriteAdapterOptions& o) {
  if (o.base.empty())
    throw Error(Option::base, "is missing: a model's own paths name the modules",
                "name a model folder, a config.json or a hub name");
  const BaseModel base = open_base(o.base, o.model_specs);
  PlanOptions plan;
  plan.to = o.to;
  plan.threads = o.threads;
  Adapter made = adapter;
  if (made.config.json.is(Json::Kind::null))
    made.config = new_config(adapter.config.base_model.empty() ? o.base : adapter.config.base_model,
                             base.spec, adapter.config.r, adapter.config.lora_alpha,
                             adapter.config.use_rslora);
  if (made.expert_count == 0 && !made.experts.empty()) made.expert_count = base.spec.experts;
  o.job.check();
  write_conversion(plan_conversion(std::move(made), base.spec, plan), out, folder_of(o));
}

ConvertResult convert(const std::string& in, const std::string& out,
                      const ConvertOptions& options) {
  options.job.check();
  return find_buffer_engine(options.to) != nullptr ? convert_to_buffers(in, out, options)
                                                   : convert_adapter({in}, out, options);
}

ConvertResult convert(const TensorMap& tensors, std::string_view config, const std::string& out,
                      const ConvertOptions& options) {
  options.job.check();
  if (find_buffer_engine(options.to) != nullptr)
    throw Error(at_option(Option::to, options.to),
                "reads the files of a folder as the server does, and this adapter is in memory",
                "write it in a layout first");
  return convert_adapter({"", &tensors, config}, out, options);
}

Outcome Validation::outcome(std::optional<Severity> fail_on) const {
  Outcome out = Outcome::clean;
  for (const Finding& finding : findings)
    if (finding.unjudged)
      out = Outcome::not_judged;
    else if (fail_on && finding.severity >= *fail_on)
      return Outcome::findings;
  return out;
}

bool Validation::fails(Severity severity) const {
  return std::any_of(findings.begin(), findings.end(),
                     [&](const Finding& finding) { return finding.severity >= severity; });
}

Validation validate(const std::vector<std::string>& adapters, const ValidateOptions& options) {
  const ValidateRequest request = request_of(adapters, options);
  Validation out;
  out.details = std::make_shared<const ValidationReport>(validate(request));
  const ValidationReport& result = *out.details;
  for (const Deployment& deployment : result.deployments)
    for (const Subject& adapter : deployment.adapters) out.adapters.push_back(adapter.given);
  out.findings = result.results.findings;
  for (const Waived& waived : result.waived)
    out.ignored.push_back({waived.finding, waived.reason, waived.from});
  for (const Skipped& skipped : result.results.skipped)
    out.skipped.emplace_back(skipped.what, skipped.why);
  out.notes = result.results.notes;
  for (const Waiver* waiver : unused(request.waivers, result.waived))
    out.unused_ignores.push_back(unused_text(*waiver, result.results));
  out.rules_run = result.results.rules_run;
  return out;
}

const Repair* find_repair(const Validation& validation) {
  for (const Finding& finding : validation.findings)
    if (finding.severity != Severity::information && finding.repair && finding.repair->drop.empty())
      return &*finding.repair;
  return nullptr;
}

ConvertResult repair_adapter(const Repair& repair, const std::string& out, const JobControl& job) {
  ConvertOptions options;
  static_cast<LoadOptions&>(options) = repair.load;
  options.job = job;
  options.to = repair.to;
  options.engine = repair.engine;
  options.server_options = repair.server_options;
  options.drop = repair.drop;
  options.dtype = repair.dtype;
  return convert(repair.adapter, out, options);
}

std::string report(const Validation& validation, std::string_view format,
                   const ReportOptions& options) {
  if (const ReportFormat* found = find_report_format(format))
    return found->write(report_of(validation, options));
  std::vector<std::string_view> known;
  for (const ReportFormat* each : all_report_formats()) known.push_back(each->id);
  throw unknown_word(at_option(Option::format), "format", format, known);
}

std::string summary(const Validation& validation, const ReportOptions& options) {
  return summary_line(report_of(validation, options));
}

}  // namespace moelora
