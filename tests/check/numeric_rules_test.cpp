// NUM001 through the runner: --source and --numeric.

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>

#include "lib/base/error.h"
#include "lib/check/define_rule.h"
#include "lib/check/specimen.h"
#include "lib/check/validate.h"
#include "tests/check/goldens.h"

using namespace moelora;
using namespace moelora::test;

namespace {

const std::string kGptOss = std::string(MOELORA_TEST_DATA) + "/gpt_oss";

ValidateRequest request(const std::string& packed, const std::string& source) {
  ValidateRequest out;
  out.adapters = {kGptOss + "/" + packed};
  out.subject.load.base = kGptOss + "/base";
  out.subject.threads = 1;
  out.numeric = true;
  if (!source.empty()) out.source = kGptOss + "/" + source;
  return out;
}

std::vector<Finding> num001(const ValidateRequest& request) {
  std::vector<Finding> out;
  for (const Finding& finding : validate(request).results.findings)
    if (finding.rule->id == "NUM001") out.push_back(finding);
  return out;
}

// Says that the specimen's forward differs from that of the same adapter.
void differ(Specimen& specimen, double relative) {
  specimen.source = specimen.adapter();
  StageReport report;
  report.device = "CPU, float";
  report.deltas = 72;
  report.differences = {{{Projection::up, 4, 2, relative / 2, false}, 0},
                        {{Projection::down, 3, 9, relative, false}, 1}};
  specimen.adapter().forward = report;
}

}  // namespace

TEST_CASE("an adapter in another trainer's form is its source") {
  CHECK(num001(request("peft_params_swapped_roles", "peft_params")).empty());
  CHECK(num001(request("tinker.build_lora_adapter", "tinker")).empty());
}

TEST_CASE("columns in the other order are named, with every tensor concerned") {
  const auto found = num001(request("peft_params_grouped_b_unmarked", "peft_params"));
  REQUIRE(found.size() == 1);
  CHECK(found[0].severity == Severity::error);
  CHECK(found[0].message.find("expert-major was read as rank-major") != std::string::npos);
  CHECK(found[0].message.find("layers 0, 1, experts 0-3") != std::string::npos);
  CHECK(found[0].names.size() == 4);
  CHECK(found[0].file == "adapter_model.safetensors");
}

TEST_CASE("of another training nothing is explained, and what it lacks is said") {
  const auto found = num001(request("peft_params_rslora", "peft_params"));
  REQUIRE(found.size() == 2);
  CHECK(found[0].message.find("nothing in the source explains") != std::string::npos);
  CHECK(found[1].message.find("are not there; model.layers.0.self_attn.o_proj") !=
        std::string::npos);
}

TEST_CASE("without --numeric it does not run, without --source it is skipped") {
  ValidateRequest plain = request("peft_params", "");
  RuleResults results = validate(plain).results;
  CHECK(std::any_of(results.skipped.begin(), results.skipped.end(), [](const Skipped& s) {
    return s.what.find("NUM001") != std::string::npos &&
           s.why.find("--source") != std::string::npos;
  }));
  plain.numeric = false;
  results = validate(plain).results;
  CHECK(std::none_of(results.skipped.begin(), results.skipped.end(),
                     [](const Skipped& s) { return s.what.find("NUM001") != std::string::npos; }));
}

TEST_CASE("a source that cannot be read is the user's mistake") {
  CHECK_THROWS_AS(validate(request("peft_params", "no_such_adapter")), Error);
}

TEST_CASE("a comparison that cannot be made is an error, not silence") {
  const RuleResults results = check_specimen("qwen3_moe_stacked_params", [](Specimen& s) {
    s.source = s.adapter();
    remove_tensors(s, "layers.0.mlp.experts.base_layer.lora_B");
  });
  const auto found = found_by(results, "NUM001");
  REQUIRE(found.size() == 1);
  CHECK(found[0].severity == Severity::error);
  CHECK(found[0].unchecked);
  CHECK(found[0].message.find("cannot be compared") != std::string::npos);
}

TEST_CASE("other factors of the same product are accepted, and said to be") {
  const RuleResults results = check_specimen("qwen3_moe_per_expert", [](Specimen& s) {
    s.source = s.adapter();
    const TensorMap before = s.tensors();
    for (const auto& [name, tensor] : before) {  // ranks in another order
      if (name.find("layers.0.mlp.experts.1.up_proj.lora_") == std::string::npos) continue;
      const int dim = name.find("lora_A") != std::string::npos ? 0 : 1;
      s.set(name, Tensor::concat(dim, std::vector{tensor.slice(dim, 1, tensor.dim(dim) - 1),
                                                  tensor.slice(dim, 0, 1)}));
    }
  });
  const auto found = found_by(results, "NUM001");
  REQUIRE(found.size() == 1);
  CHECK(found[0].severity == Severity::information);
  CHECK(found[0].message.starts_with("1 of "));
  CHECK(found[0].message.ends_with("and the same product to 1e-07 of its norm"));
  CHECK(found[0].fix.empty());
}

TEST_CASE("the forward says where it ran, over the base's own weights") {
  ValidateRequest wanted = request("peft_params_swapped_roles", "peft_params");
  wanted.device = DeviceChoice::cpu;
  const ValidationReport report = validate(wanted);
  const std::optional<StageReport>& forward = report.deployments[0].adapters[0].forward;
  REQUIRE(forward);
  CHECK(forward->device == "CPU, float");
  CHECK(forward->base.starts_with("BF16 of "));
  CHECK(forward->deltas == 24);
  CHECK(forward->differences.empty());
  const auto& notes = report.results.notes;
  CHECK(std::any_of(notes.begin(), notes.end(), [](const std::string& note) {
    return note.find("all 24 deltas in 2 layers are the source's, to 1e-07") != std::string::npos;
  }));
}

TEST_CASE("a forward that differs is a finding where nothing else found a fault") {
  const auto checked = [](void (*change)(Specimen&)) {
    return found_by(check_specimen("qwen3_moe_per_expert", change), "NUM001");
  };
  const auto found = checked([](Specimen& s) { differ(s, 1.424); });
  REQUIRE(found.size() == 1);
  CHECK(found[0].severity == Severity::error);
  CHECK(found[0].message ==
        "the forward on CPU, float gives deltas that are not the source's: 2 of 72, most in layer "
        "1 expert 3 down_proj, off by 142 %");
  const auto no_number = checked([](Specimen& s) { differ(s, kBeyond); });
  CHECK(no_number[0].message.ends_with("which gives no number"));
}

TEST_CASE("a card that is asked for and not there is the user's mistake") {
  setenv("MOELORA_CUDA_MODULE", "/nowhere/libmoelora_cuda.so", 1);
  ValidateRequest wanted = request("peft_params", "peft_params");
  wanted.device = DeviceChoice::cuda;
  CHECK_THROWS_AS(validate(wanted), Error);
  wanted.device = DeviceChoice::automatic;
  CHECK(validate(wanted).deployments[0].adapters[0].forward->why_cpu.find("/nowhere/") !=
        std::string::npos);
  unsetenv("MOELORA_CUDA_MODULE");
}

TEST_CASE("adapters without experts have no forward, and the report says so") {
  const ValidationReport report = validate(request("attention_only", "attention_only"));
  CHECK(!report.deployments[0].adapters[0].forward);
  CHECK(report.deployments[0].adapters[0].forward_not_run.find("no LoRA on routed experts") !=
        std::string::npos);
}
