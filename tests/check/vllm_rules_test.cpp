// Where a rule of vLLM begins and ends: limits, versions, switches.

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <functional>

#include "lib/check/run_rules.h"
#include "lib/check/specimen.h"

using namespace moelora;

namespace {

// Ids of the VLM findings above information, in order: "VLM001 VLM009".
std::string ids(std::string_view specimen, std::string_view engine,
                const std::function<void(Specimen&)>& change) {
  Specimen changed = make_specimen(specimen);
  change(changed);
  std::vector<std::string_view> found;
  for (const Finding& finding : run_rules(deployment_of(std::move(changed), engine)).findings)
    if (finding.rule->engine == &engines::vllm && finding.severity != Severity::information)
      found.push_back(finding.rule->id);
  std::sort(found.begin(), found.end());
  return fmt::format("{}", fmt::join(found, " "));
}

auto option(const char* key, const char* value = "on") {
  return [=](Specimen& specimen) { specimen.options.values[key] = value; };
}

}  // namespace

TEST_CASE("rank limits hold at the limit and not beyond it") {
  const auto limit = [](int64_t max_rank) {
    return [=](Specimen& specimen) { specimen.options.max_lora_rank = max_rank; };
  };
  CHECK(ids("qwen3_moe_per_expert", "vllm", limit(8)) == "");
  CHECK(ids("qwen3_moe_per_expert", "vllm", limit(1)) == "VLM007");
  CHECK(ids("qwen3_moe_per_expert", "vllm", limit(128)) == "");
  CHECK(ids("qwen3_moe_per_expert", "vllm@0.31", limit(256)) == "VLM008");
  CHECK(ids("qwen3_moe_per_expert", "vllm@0.22", limit(256)) == "VLM008");
  CHECK(ids("qwen3_moe_per_expert", "vllm@2026-05-28", limit(256)) == "");
  CHECK(ids("qwen3_moe_per_expert", "vllm@0.32", limit(256)) == "");
}

TEST_CASE("a rank that tensor parallelism divides can be fully sharded") {
  const auto ranks = [](int64_t tp) {
    return [=](Specimen& specimen) {
      specimen.options.values["fully-sharded-loras"] = "on";
      specimen.options.tp = tp;
    };
  };
  CHECK(ids("qwen3_moe_per_expert", "vllm", ranks(2)) == "");
  CHECK(ids("qwen3_moe_per_expert", "vllm", ranks(4)) == "");
  CHECK(ids("qwen3_moe_per_expert", "vllm", ranks(8)) == "VLM019 VLM037");
  CHECK(ids("qwen3_moe_per_expert", "vllm", ranks(3)) ==
        "VLM019 VLM019 VLM037");  // 16 % 3 and 4 % 3
}

TEST_CASE("the switches that make another layout servable make the rules quiet") {
  const auto mixed = [](bool stacked) {
    return [=](Specimen& specimen) {
      specimen.options.values["enable-mixed-moe-lora-format"] = "on";
      if (stacked) specimen.options.values["is-3d-lora-weight"] = "on";
    };
  };
  CHECK(ids("qwen3_moe_stacked_params", "vllm", mixed(false)) == "VLM001");
  CHECK(ids("qwen3_moe_stacked_params", "vllm", mixed(true)) == "");
  CHECK(ids("gpt_oss_stacked_params", "vllm", mixed(false)) == "VLM001");
  CHECK(ids("gpt_oss_stacked_params", "vllm", mixed(true)) == "VLM002");
  CHECK(ids("gpt_oss_attention", "vllm", mixed(true)) == "");
  CHECK(ids("qwen3_moe_shared_outer", "vllm@0.27", option("enable-moe-shared-loras")) == "");
  CHECK(ids("qwen3_moe_shared_outer", "vllm@0.22", option("enable-moe-shared-loras")) == "VLM022");
  CHECK(ids("qwen3_moe_per_expert", "vllm@0.27", option("enable-moe-shared-loras")) == "VLM001");
  CHECK(ids("gpt_oss_stacked_params", "vllm@0.31", option("enable-moe-shared-loras")) == "");
  CHECK(ids("gpt_oss_stacked_params", "vllm@0.32", option("enable-moe-shared-loras")) == "VLM022");
}

TEST_CASE("experts before the first expert LoRA are no clean bill") {
  const auto nothing = [](Specimen&) {};
  for (const char* version : {"vllm@0.9.1", "vllm@0.11.0", "vllm@2025-08-01"})
    CHECK(ids("qwen3_moe_per_expert", version, nothing).find("VLM034") != std::string::npos);
  CHECK(ids("qwen3_moe_per_expert", "vllm@0.11.1", nothing) == "");
}

TEST_CASE("0.32 refuses features of PEFT by its config that earlier releases pass over") {
  const auto config = [](const char* key, const Json& value) {
    return [=](Specimen& specimen) { specimen.config().set(key, value); };
  };
  for (const char* init : {"pissa_niter_4", "olora", "corda", "loftq"}) {
    CHECK(ids("qwen3_moe_per_expert", "vllm@0.31", config("init_lora_weights", init)) == "");
    CHECK(ids("qwen3_moe_per_expert", "vllm@0.32", config("init_lora_weights", init)) == "VLM035");
  }
  for (const char* init : {"gaussian", "EVA", "lora_ga", "orthogonal", "mica"})
    CHECK(ids("qwen3_moe_per_expert", "vllm", config("init_lora_weights", init)) == "");
  CHECK(ids("qwen3_moe_per_expert", "vllm", config("use_qalora", true)) == "VLM035");
  CHECK(ids("qwen3_moe_per_expert", "vllm", config("lora_bias", true)) == "VLM015");
  const Json dead = Json::object({{"zz_proj", int64_t{32}}});
  CHECK(ids("qwen3_moe_per_expert", "vllm@0.31", config("rank_pattern", dead)) == "");
  CHECK(ids("qwen3_moe_per_expert", "vllm@0.32", config("rank_pattern", dead)) == "VLM007");
}

TEST_CASE("what a version has fixed stays quiet there") {
  const auto rslora = [](Specimen& specimen) { specimen.config().set("use_rslora", true); };
  CHECK(ids("qwen3_moe_per_expert", "vllm@0.27", rslora) == "VLM010");
  CHECK(ids("qwen3_moe_per_expert", "vllm@0.29", rslora) == "VLM010");
  CHECK(ids("qwen3_moe_per_expert", "vllm@2026-09-21", rslora) == "VLM010");
  CHECK(ids("qwen3_moe_per_expert", "vllm@2026-09-22", rslora) == "");
  CHECK(ids("qwen3_moe_per_expert", "vllm@0.30", rslora) == "");
  CHECK(ids("gpt_oss_stacked_params", "vllm@0.27", rslora) == "");
  const auto nothing = [](Specimen&) {};
  CHECK(ids("gpt_oss_stacked_params", "vllm@2025-12-30", nothing) == "VLM017");
  CHECK(ids("gpt_oss_stacked_params", "vllm@2025-12-31", nothing) == "");
}

TEST_CASE("expert parallel wants its own all2all backend, a version that has it and no sharding") {
  const auto parallel = [](const char* backend) {
    return [=](Specimen& specimen) {
      specimen.options.values["enable-expert-parallel"] = "on";
      specimen.options.values["all2all-backend"] = backend;
      specimen.options.tp = 2;
    };
  };
  CHECK(ids("qwen3_moe_per_expert", "vllm", parallel("")) == "");
  CHECK(ids("qwen3_moe_per_expert", "vllm", parallel("allgather_reducescatter")) == "");
  CHECK(ids("qwen3_moe_per_expert", "vllm", parallel("deepep_low_latency")) == "VLM020");
  CHECK(ids("qwen3_moe_per_expert", "vllm@2026-05-08", parallel("")) == "VLM020");
  CHECK(ids("gpt_oss_attention", "vllm@2026-05-08", parallel("")) == "VLM020");
}

TEST_CASE(
    "padded partitions need MXFP4, ranks that share an expert, and a size that does not fit") {
  const auto served = [](int64_t tp, bool parallel, int64_t intermediate) {
    return [=](Specimen& specimen) {
      specimen.options.values["quantization"] = "mxfp4";
      if (parallel) specimen.options.values["enable-expert-parallel"] = "on";
      specimen.options.tp = tp;
      specimen.base_config.set("intermediate_size", intermediate);
    };
  };
  CHECK(ids("gpt_oss_stacked_params", "vllm@0.32", served(2, false, 48)).ends_with("VLM021"));
  CHECK(ids("gpt_oss_stacked_params", "vllm@0.33", served(2, false, 48)) == "");
  CHECK(ids("gpt_oss_stacked_params", "vllm@0.32", served(1, false, 48)) == "");
  CHECK(ids("gpt_oss_stacked_params", "vllm@0.32", served(2, true, 48)) == "");
  CHECK(ids("gpt_oss_attention", "vllm@0.32", served(2, false, 48)) == "");
}

TEST_CASE("the memory of the slots is compared with the server's to the byte") {
  const auto memory = [](uint64_t bytes) {
    return [=](Specimen& specimen) { specimen.options.gpu_memory = bytes; };
  };
  const Deployment deployment = deployment_of(make_specimen("qwen3_moe_per_expert"), "vllm");
  const uint64_t bytes = deployment.engines[0].plan->memory.total_bytes();
  CHECK(ids("qwen3_moe_per_expert", "vllm", memory(bytes)) == "");
  CHECK(ids("qwen3_moe_per_expert", "vllm", memory(bytes - 1)) == "VLM023");
}

TEST_CASE("patterns that change no scale are not a fault") {
  const auto patterns = [](int64_t rank, int64_t alpha) {
    return [=](Specimen& specimen) {
      specimen.config().set("rank_pattern", Json::object({{"q_proj", rank}}));
      specimen.config().set("alpha_pattern", Json::object({{"q_proj", alpha}}));
    };
  };
  CHECK(ids("qwen3_moe_per_expert", "vllm@0.31", patterns(4, 16)) == "VLM009");
  CHECK(ids("qwen3_moe_per_expert", "vllm@0.31", patterns(8, 16)) == "");
  CHECK(ids("qwen3_moe_per_expert", "vllm@0.32", patterns(4, 16)) == "");  // 16 / 8 = 8 / 4
}
