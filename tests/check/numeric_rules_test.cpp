// NUM001 through the runner: --source and --numeric.

#include <doctest/doctest.h>

#include "lib/base/error.h"
#include "lib/check/judge.h"
#include "tests/check/goldens.h"

using namespace moelora;
using namespace moelora::test;

namespace {

const std::string kGptOss = std::string(MOELORA_TEST_DATA) + "/gpt_oss";

JudgeRequest request(const std::string& packed, const std::string& source) {
  JudgeRequest out;
  out.adapters = {kGptOss + "/" + packed};
  out.subject.load.base = kGptOss + "/base";
  out.subject.threads = 1;
  out.numeric = true;
  if (!source.empty()) out.source = kGptOss + "/" + source;
  return out;
}

std::vector<Finding> num001(const JudgeRequest& request) {
  std::vector<Finding> out;
  for (const Finding& finding : judge(request).judgement.findings)
    if (finding.rule->id == "NUM001") out.push_back(finding);
  return out;
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
  CHECK(found[0].message.find("other order") != std::string::npos);
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
  JudgeRequest plain = request("peft_params", "");
  Judgement judgement = judge(plain).judgement;
  CHECK(std::any_of(judgement.skipped.begin(), judgement.skipped.end(), [](const Skipped& s) {
    return s.what.find("NUM001") != std::string::npos &&
           s.why.find("--source") != std::string::npos;
  }));
  plain.numeric = false;
  judgement = judge(plain).judgement;
  CHECK(std::none_of(judgement.skipped.begin(), judgement.skipped.end(),
                     [](const Skipped& s) { return s.what.find("NUM001") != std::string::npos; }));
}

TEST_CASE("a source that cannot be read is the user's mistake") {
  CHECK_THROWS_AS(judge(request("peft_params", "no_such_adapter")), Error);
}

TEST_CASE("a comparison that cannot be made is an error, not silence") {
  const Judgement judgement = judge_specimen("qwen3_moe_stacked_params", [](Specimen& s) {
    s.source = s.adapter();
    s.remove("layers.0.mlp.experts.base_layer.lora_B");
  });
  const auto found = found_by(judgement, "NUM001");
  REQUIRE(found.size() == 1);
  CHECK(found[0].severity == Severity::error);
  CHECK(found[0].unchecked);
  CHECK(found[0].message.find("cannot be compared") != std::string::npos);
}
