#include "tests/check/goldens.h"

#include <doctest/doctest.h>
#include <fmt/core.h>

#include <algorithm>
#include <filesystem>

#include "lib/base/cast.h"
#include "lib/check/specimen.h"
#include "lib/model/base_model.h"

namespace moelora::test {
namespace {

namespace fs = std::filesystem;

std::string data(const std::string& family) {
  return std::string(MOELORA_TEST_DATA) + "/" + family;
}

}  // namespace

GoldenResults check_golden(const std::string& family, const std::string& name, bool with_base,
                           const std::vector<std::string>& engines) {
  GoldenResults out;
  if (with_base) out.deployment.base = open_base(data(family) + "/base");
  Subject subject = open_subject(data(family) + "/" + name);
  interpret(subject, out.deployment.base, {});
  out.deployment.adapters.push_back(std::move(subject));
  for (const std::string& engine : engines)
    out.deployment.engines.push_back({parse_engine(engine), {}, std::nullopt, ""});
  plan_engines(out.deployment);
  out.results = run_rules(out.deployment);
  return out;
}

RuleResults check_specimen(std::string_view id, void (*change)(Specimen&),
                           std::string_view engine) {
  Specimen specimen = make_specimen(id);
  change(specimen);
  return run_rules(deployment_of(std::move(specimen), engine));
}

std::vector<Finding> found_by(const RuleResults& results, std::string_view rule) {
  std::vector<Finding> out;
  std::copy_if(results.findings.begin(), results.findings.end(), std::back_inserter(out),
               [&](const Finding& finding) { return finding.rule->id == rule; });
  return out;
}

Finding only(const RuleResults& results, std::string_view rule) {
  const auto found = found_by(results, rule);
  INFO(findings_text(results));
  REQUIRE(found.size() == 1);
  return found[0];
}

Severity worst(const std::vector<Finding>& findings) {
  Severity out = Severity::information;
  for (const Finding& finding : findings) out = std::max(out, finding.severity);
  return out;
}

Tensor filled(const Shape& shape, float value, DType dtype) {
  int64_t elements = 1;
  for (int64_t extent : shape) elements *= extent;
  const std::vector<float> values(static_cast<size_t>(elements), value);
  return Tensor::of_f32(shape, values).map_sources(dtype, [&](const SourcePtr& source) {
    return cast_source(source, dtype);
  });
}

std::string findings_text(const RuleResults& results) {
  std::string out;
  for (const Finding& f : results.findings)
    out += fmt::format("{} {} [{}] {}: {} | {}\n", f.rule->id, severity_name(f.severity), f.engine,
                       f.where, f.message, f.server_text);
  return out;
}

std::vector<std::string> golden_adapters(const std::string& family) {
  std::vector<std::string> out;
  for (const auto& entry : fs::directory_iterator(data(family)))
    if (fs::exists(entry.path() / "adapter_config.json"))
      out.push_back(entry.path().filename().string());
  std::sort(out.begin(), out.end());
  return out;
}

}  // namespace moelora::test
