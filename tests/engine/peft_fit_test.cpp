// What lora-convert --for peft@V writes is loaded whole: every adapter of PEFT's oracle is made fit
// for each release, or refused with a line; what PEFT loads whole as it is, is never refused.

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "lib/base/error.h"
#include "tests/adapter/readme_section.h"
#include "tests/engine/fitted.h"
#include "tests/engine/peft_oracle.h"

using namespace moelora;
using namespace moelora::test;

namespace {

LoadedAdapter read(const PeftFamily& family, const std::string& form) {
  const ServedAdapter served = family.adapter(form);
  AdapterFiles files;
  files.config = parse_adapter_config(served.config, "adapter_config.json");
  for (const TensorHeader& tensor : served.files.front().tensors)
    files.tensors.emplace(tensor.name, Tensor::zeros(tensor.dtype, tensor.shape));
  return interpret_adapter(std::move(files), BaseModel{family.spec, family.config(), "", ""}, "",
                           {});
}

// "peft@0.18.1" with transformers=5.5.4 of "0.18.1+t5".
FitOptions options_for(const std::string& release) {
  const size_t plus = release.find('+');
  FitOptions out =
      fit_for("peft@" + release.substr(0, plus),
              plus == std::string::npos ? std::vector<std::string>{}
                                        : std::vector<std::string>{"transformers=5.5.4"});
  out.measure = false;
  return out;
}

ServedAdapter served_of(const Conversion& made) {
  ServedAdapter out;
  out.name = out.folder = "OUT";
  out.has_config = true;
  out.config = made.config;
  WeightFile file{"adapter_model.safetensors", {}};
  for (const auto& [name, tensor] : made.tensors)
    file.tensors.push_back({name, tensor.dtype(), tensor.shape()});
  out.files.push_back(std::move(file));
  return out;
}

// "" where PEFT loads all of it.
std::string lost(const PeftFamily& family, const Conversion& made, const FitOptions& options) {
  const ServedAdapter served = served_of(made);
  const AdapterPlan plan =
      engines::peft
          .plan(
              {{&served, 1}, family.spec, family.config(), options.server, options.engine.version})
          .adapters.front();
  if (const PlanEvent* refusal = plan.first_refusal()) return refusal_text(*refusal->refusal);
  if (!plan.events.empty()) return plan.events.front().detail;
  for (const TensorFate& fate : plan.fates)
    if (fate.fate != Fate::used) return fate.tensor;
  return "";
}

// Loaded whole as they are, and not to be read: DoRA of routed experts, which no layout holds, and
// experts whose sizes are the same with lora_A on either side (--roles decides).
bool cannot_be_read(const PeftFamily& family, const PeftRecord& record) {
  const bool one_size = family.name.ends_with("_sq") &&
                        (record.form == "params_down_only" || record.form == "params_gate_up_only");
  return one_size || record.form == "numbered_dora";
}

struct Outcome {
  std::string refused, lost;
};

Outcome convert(const PeftFamily& family, const PeftRecord& record) {
  const FitOptions options = options_for(record.release);
  try {
    FittedConversion made = plan_fitted(read(family, record.form), options, {});
    check_served(made.conversion, "OUT", options, 0);
    return {"", lost(family, made.conversion, options)};
  } catch (const Error& error) {
    return {error.what(), ""};
  }
}

}  // namespace

TEST_CASE("--for peft writes what PEFT loads whole, or says why it cannot") {
  std::map<std::string, int> written, refused;
  each_peft_family([&](const PeftFamily& family) {
    for (const PeftRecord& record : family.records()) {
      const Outcome outcome = convert(family, record);
      INFO(family.name << "/" << record.form << " for " << record.release);
      CHECK_MESSAGE(outcome.lost.empty(), outcome.lost);
      const bool refusable = !record.is_whole() || cannot_be_read(family, record);
      CHECK_MESSAGE((outcome.refused.empty() || refusable), outcome.refused);
      CHECK(outcome.refused.find('\n') == std::string::npos);
      ++(outcome.refused.empty() ? written : refused)[record.release];
    }
  });
  std::string table = "| PEFT | written, loaded whole | refused |\n|---|---|---|\n";
  for (const auto& [release, count] : written)
    table += fmt::format("| {} | {} | {} |\n", release, count, refused[release]);
  check_results_section("peft_fit", table);
}
