// lora-validate's results against PEFT itself: what it loads whole is quiet, what it loses or
// scales is at least a warning, what it refuses is an error that quotes it. (What other releases do
// is compared by plan: tests/engine/peft_oracle_test.cpp.)

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <fstream>
#include <map>
#include <set>

#include "lib/io/output.h"
#include "lib/io/tensor_writer.h"
#include "lib/moelora.h"
#include "tests/engine/peft_oracle.h"
#include "tests/io/temp_folder.h"

using namespace moelora;
using namespace moelora::test;

namespace {

namespace fs = std::filesystem;

constexpr std::string_view kNewest = "0.21.2";

// The sizes are equal with lora_A on either side, and only who made the file knows on which it is:
// FMT012 asks, or PEFT computes nonsense without a word.
const std::set<std::string>& exceptions() {
  static const std::set<std::string> kExceptions = {
      "qwen3_moe_sq/params_gate_up_only", "glm4_moe_sq/params_down_only",
      "gpt_oss_sq/params_down_only", "nemotron_h/params_swapped_dg"};
  return kExceptions;
}

class OnDisk {
 public:
  explicit OnDisk(const PeftFamily& family) : family_(family) {
    fs::create_directory(temp_.path("base"));
    std::ofstream(temp_.path("base/config.json")) << family.config().dump();
  }

  Validation validated(const std::string& form) {
    const ServedAdapter adapter = family_.adapter(form);
    TensorMap tensors;
    for (const TensorHeader& tensor : adapter.files.front().tensors)
      tensors.emplace(tensor.name, Tensor::zeros(tensor.dtype, tensor.shape));
    OutputFolder out(temp_.path(form), {}, {false, false});
    write_weights(out, "adapter_model", tensors, {});
    out.commit("adapter_config.json", adapter.config.dump());
    ValidateOptions options;
    options.base = temp_.path("base");
    options.engines = {fmt::format("peft@{}", kNewest)};
    options.look_at_values = false;
    options.threads = 1;
    return validate({temp_.path(form)}, options);
  }

 private:
  const PeftFamily& family_;
  TempFolder temp_;
};

// But for what a plan cannot know: the class of a module, the order of a set and of mismatches.
std::string known_part(const std::string& raised) {
  for (std::string_view start : {"Target module ", "Target modules ", "size mismatch for "})
    if (const size_t at = raised.find(start); at != std::string::npos)
      return raised.substr(0, at + start.size());
  return raised.substr(0, raised.find("Incompatible modules"));
}

bool quotes(const Validation& found, const Refusal& raised) {
  const std::string known = known_part(refusal_text(raised));
  return std::any_of(found.findings.begin(), found.findings.end(), [&](const Finding& f) {
    return f.severity == Severity::error && f.server_text.starts_with(known);
  });
}

std::string text_of(const Validation& found) {
  std::string out;
  for (const Finding& f : found.findings)
    if (f.severity != Severity::information)
      out += fmt::format("\n    {} {} [{}] {}: {} | {}", f.rule->id, severity_name(f.severity),
                         f.engine, f.where, f.message, f.server_text);
  return out;
}

// What is wrong with the verdict; "" for nothing.
std::string fault_of(const Validation& found, const PeftRecord& record) {
  if (record.raised) {
    if (!found.fails(Severity::error)) return "PEFT raises " + refusal_text(*record.raised);
    return quotes(found, *record.raised) ? "" : "no quote of " + refusal_text(*record.raised);
  }
  if (record.is_whole()) return found.fails(Severity::warning) ? "PEFT loads it whole" : "";
  return found.fails(Severity::warning) ? "" : "PEFT loses or scales some of it";
}

}  // namespace

TEST_CASE("what PEFT loads whole is quiet, what it loses is said, what it refuses is an error") {
  std::map<std::string, int> counts;
  each_peft_family([&](const PeftFamily& family) {
    OnDisk disk(family);
    for (const PeftRecord& record : family.records()) {
      if (record.release != kNewest) continue;
      const Validation found = disk.validated(record.form);
      const std::string fault = fault_of(found, record);
      ++counts[record.raised ? "raised" : record.is_whole() ? "whole" : "lost"];
      const std::string label = family.name + "/" + record.form;
      CHECK_MESSAGE(fault.empty() == (exceptions().count(label) == 0),
                    label << ": " << fault << text_of(found));
    }
  });
  CHECK(counts["raised"] > 650);
  CHECK(counts["whole"] > 900);
  CHECK(counts["lost"] > 600);
}
