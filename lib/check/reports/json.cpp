#include "lib/io/json.h"

#include <fmt/core.h>

#include <algorithm>
#include <set>

#include "lib/base/version.h"
#include "lib/check/report_parts.h"

namespace moelora {
namespace {

Json text(std::string_view value) { return value; }

Json text_or_null(std::string_view value) { return value.empty() ? Json() : text(value); }

Json number(uint64_t value) {
  return value <= static_cast<uint64_t>(INT64_MAX) ? Json(static_cast<int64_t>(value))
                                                   : Json(static_cast<double>(value));
}

Json texts(const std::vector<std::string>& values) {
  std::vector<Json> items;
  for (const std::string& value : values) items.push_back(text(value));
  return Json::array(std::move(items));
}

Json finding_json(const Finding& f, const Report& report) {
  return Json::object(
      {{"rule", f.rule->id},
       {"name", f.rule->name},
       {"severity", severity_name(f.severity)},
       {"engine", text_or_null(f.engine)},
       {"adapter",
        f.adapter ? text(report.deployments[f.deployment].adapters[*f.adapter].given) : Json()},
       {"file", text_or_null(f.file)},
       {"line", f.line},
       {"column", f.column},
       {"where", text(f.where)},
       {"count", static_cast<int64_t>(f.names.size())},
       {"names", texts(f.names)},
       {"message", text(f.message)},
       {"fix", text(f.fix)},
       {"command", f.repair ? text(f.repair->command()) : Json()},
       {"server_text", text_or_null(f.server_text)},
       {"unchecked", f.unchecked},
       {"unjudged", f.unjudged}});
}

Json waived_json(const Waived& waived, const Report& report) {
  Json out = finding_json(waived.finding, report);
  out.set("reason", text(waived.reason));
  out.set("ignored_by", text(waived.from));
  return out;
}

Json delta_json(const LayerDeltaError& error) {
  return Json::object({{"layer", error.layer},
                       {"expert", error.expert},
                       {"projection", projection_name(error.projection)},
                       {"relative", error.relative}});
}

// The largest differences alone: there may be one for each projection of each expert.
Json forward_json(const StageReport& report) {
  std::vector<LayerDeltaError> worst = report.differences;
  std::stable_sort(worst.begin(), worst.end(),
                   [](const auto& a, const auto& b) { return a.relative > b.relative; });
  std::vector<Json> shown;
  for (size_t i = 0; i < std::min<size_t>(worst.size(), 16); ++i)
    shown.push_back(delta_json(worst[i]));
  return Json::object({{"device", text(report.device)},
                       {"why_cpu", text_or_null(report.why_cpu)},
                       {"base", text(report.base)},
                       {"layers", report.layers},
                       {"experts", report.experts},
                       {"tokens", report.tokens},
                       {"compared", report.deltas},
                       {"relative", report.relative},
                       {"different", static_cast<int64_t>(report.differences.size())},
                       {"worst", Json::array(std::move(shown))}});
}

std::vector<Section> adapter_sections(const Report& report) {
  std::vector<Section> out = sections(report);
  std::erase_if(out, [](const Section& section) { return !section.adapter; });
  return out;
}

Json adapter_json(const Section& section, const Report& report) {
  const Subject& adapter = report.deployments[section.deployment].adapters[*section.adapter];
  Json out = Json::object({{"path", text(adapter.given)},
                           {"layout", adapter.layout ? Json(adapter.layout->id) : Json()},
                           {"tensors", tensors_of(report, section)},
                           {"base", adapter.base ? text(adapter.base->origin) : Json()},
                           {"forward", adapter.forward ? forward_json(*adapter.forward) : Json()}});
  if (!report.alone.empty()) out.set("unchanged", report.alone[section.deployment].unchanged);
  return out;
}

struct RunOf {
  const Deployment* deployment;
  const EngineRun* run;
};

Json base_json(const Deployment& deployment) {
  return deployment.base ? text(deployment.base->origin) : Json();
}

std::string why_not_simulated(const EngineRun& run) {
  return run.plan ? run.plan->not_known : run.not_planned;
}

Json engine_json(const RunOf& of) {
  const std::string why_not = why_not_simulated(*of.run);
  return Json::object({{"engine", of.run->choice.label()},
                       {"base", base_json(*of.deployment)},
                       {"simulated", of.run->plan && why_not.empty()},
                       {"why_not", text_or_null(why_not)}});
}

// Of adapters that were judged alone, what is said of the server of many is said once.
std::vector<Json> engines_json(const Report& report) {
  std::vector<Json> out;
  std::set<std::string> seen;
  for (const Deployment& deployment : report.deployments)
    for (const EngineRun& run : deployment.engines) {
      Json json = engine_json({&deployment, &run});
      if (report.alone.empty() || seen.insert(json.dump(-1)).second) out.push_back(std::move(json));
    }
  return out;
}

Json served_json(const Served& served, const Report& report) {
  const Deployment& deployment = report.deployments[served.deployment];
  return Json::object({{"adapter", text(deployment.adapters[served.adapter].given)},
                       {"engine", served.engine},
                       {"text", text(served.text)}});
}

Json buffer_json(const MemoryRow& row) {
  std::vector<Json> shape;
  for (const int64_t extent : row.shape) shape.emplace_back(extent);
  return Json::object({{"buffer", text(row.buffer)},
                       {"shape", Json::array(std::move(shape))},
                       {"layers", row.layers},
                       {"bytes", number(row.bytes)}});
}

Json memory_json(const EngineRun* run) {
  const MemoryPlan& plan = run->plan->memory;
  std::vector<Json> buffers;
  for (const MemoryRow& row : plan.rows) buffers.push_back(buffer_json(row));
  return Json::object({{"engine", run->choice.label()},
                       {"dtype", plan.dtype},
                       {"slots", plan.slots},
                       {"slot_bytes", number(plan.slot_bytes())},
                       {"total_bytes", number(plan.total_bytes())},
                       {"buffers", Json::array(std::move(buffers))}});
}

Json skipped_json(const Skipped& skipped) {
  return Json::object({{"what", text(skipped.what)}, {"why", text(skipped.why)}});
}

Json summary_json(const Report& report) {
  const Counts counts = count_findings(report.results.findings);
  const auto fail_on = report.options.fail_on;
  const bool unjudged = std::any_of(report.results.findings.begin(), report.results.findings.end(),
                                    [](const Finding& finding) { return finding.unjudged; });
  return Json::object({{"errors", counts.errors},
                       {"warnings", counts.warnings},
                       {"information", counts.information},
                       {"ignored", static_cast<int64_t>(report.waived.size())},
                       {"rules_run", report.results.rules_run},
                       {"fail_on", fail_on ? Json(severity_name(*fail_on)) : Json("never")},
                       {"failed", fails(report)},
                       {"unjudged", unjudged}});
}

// The members of the whole; lists have an entry a line. Each entry is dumped by itself: as one tree
// the names of a big adapter's findings would take more memory than the adapter's headers.
class Members {
 public:
  void value(const char* key, std::string_view dumped) {
    out_ += fmt::format("{}\n  \"{}\": {}", out_.empty() ? "" : ",", key, dumped);
  }
  template <class Range, class ToJson>
  void list(const char* key, const Range& range, ToJson to_json) {
    std::string lines;
    for (const auto& entry : range) {
      lines += lines.empty() ? "\n    " : ",\n    ";
      lines += to_json(entry).dump(-1);
    }
    value(key, lines.empty() ? "[]" : "[" + lines + "\n  ]");
  }
  std::string take() { return "{" + std::move(out_) + "\n}\n"; }

 private:
  std::string out_;
};

std::string write(const Report& report) {
  const auto& deployments = report.deployments;
  Members out;
  out.value("schema", R"("moelora.validate/1")");
  out.value("version", Json(version()).dump());
  out.value("base", deployments.size() == 1 ? base_json(deployments.front()).dump() : "null");
  out.value("project", text_or_null(report.options.project).dump());
  out.list("adapters", adapter_sections(report),
           [&](const Section& section) { return adapter_json(section, report); });
  out.list("engines", engines_json(report), [](const Json& json) { return json; });
  out.list("served", report.results.served,
           [&](const Served& s) { return served_json(s, report); });
  out.list("findings", report.results.findings,
           [&](const Finding& f) { return finding_json(f, report); });
  out.list("ignored", report.waived, [&](const Waived& w) { return waived_json(w, report); });
  out.list("skipped", report.results.skipped, skipped_json);
  out.list("notes", report.results.notes, text);
  out.list("memory", with_memory(report), memory_json);
  out.value("summary", summary_json(report).dump(-1));
  return out.take();
}

}  // namespace

const ReportFormat reports::json = {
    .id = "json",
    .summary = "one object, as schemas/validate.schema.json says",
    .write = write,
};

}  // namespace moelora
