// A family's file teaches the servers' classes of it: --model-spec, or schemas/models.

#include "lib/engine/server_class.h"

#include <doctest/doctest.h>

#include "lib/engine/engine.h"
#include "lib/engine/vllm/server/model_class.h"
#include "lib/model/model_builder.h"
#include "tests/engine/vllm_oracle.h"
#include "tests/io/error_text.h"

using namespace moelora;
using namespace moelora::test;

namespace {

constexpr const char* kNewMoe = R"([{
  "name": "NewMoeForCausalLM",
  "modules": ["self_attn.qkv_proj", "self_attn.o_proj", "block_sparse_moe.experts"],
  "experts": {"path": "block_sparse_moe.experts", "gate": "w1", "up": "w3", "down": "w2"},
  "layers": {"row": ["wo"]}
}])";

// Mixtral under another name, with what its file says of servers' classes.
Json new_family(const std::string& engines) {
  const std::string path = std::string(MOELORA_SOURCE_DIR) + "/schemas/models/mixtral.json";
  Json family = read_json_file(path);
  family.set("family", "new_moe");
  family.set("model_types", Json::object({{"new_moe", Json::object()}}));
  if (!engines.empty()) family.set("engines", parse_json(engines, "new_moe.json"));
  return family;
}

std::string vllm_alone(const std::string& classes) { return "{\"vllm\": " + classes + "}"; }

ServerPlan plan_of(std::string_view engine, const ModelSpec& spec, const Json& config) {
  VllmRun run;
  run.family = "mixtral";
  run.adapter = "per_expert";
  const std::vector<ServedAdapter> adapters{vllm_adapter(run.folder())};
  const Engine& server = *find_engine(engine);
  return server.plan({adapters, spec, config, {}, *EngineVersion::parse(server.newest)});
}

struct NewMoe {
  Json config = vllm_base("mixtral").config;
  ModelSpec spec;

  explicit NewMoe(const std::string& engines) {
    config.set("model_type", "new_moe");
    config.set("architectures", Json::strings({"NewMoeForCausalLM"}));
    spec =
        make_model_spec(config, "config.json", {parse_family(new_family(engines), "new_moe.json")});
  }

  ServerPlan plan(std::string_view engine) const { return plan_of(engine, spec, config); }
};

const EngineVersion kNewest = *EngineVersion::parse(engines::vllm.newest);

std::string fault(const std::string& engines) {
  return error_text([&] { vllm::find_model_class(NewMoe(engines).spec, kNewest); });
}

std::string replaced(std::string text, const std::string& from, const std::string& to) {
  return text.replace(text.find(from), from.size(), to);
}

}  // namespace

TEST_CASE("a family that vLLM's table does not know is planned once its file brings the class") {
  CHECK(NewMoe("").plan("vllm").not_known ==
        "NewMoeForCausalLM is no class of vLLM that is known here");
  const ServerPlan plan = NewMoe(vllm_alone(kNewMoe)).plan("vllm");
  REQUIRE(plan.adapters.size() == 1);
  CHECK(plan.adapters[0].first_refusal() == nullptr);
  for (const TensorFate& fate : plan.adapters[0].fates) CHECK(fate.fate == Fate::used);
}

TEST_CASE("one file teaches both servers a family that neither knows") {
  const NewMoe taught(std::string(R"({"sglang": [{"name": "NewMoeForCausalLM", )") +
                      R"("run_by_oracle": true}], "vllm": )" + kNewMoe + "}");
  const VllmBase& mixtral = vllm_base("mixtral");
  for (const std::string engine : {"vllm", "sglang"}) {
    CAPTURE(engine);
    const ServerPlan plan = taught.plan(engine);
    const ServerPlan known = plan_of(engine, mixtral.spec, mixtral.config);
    CHECK(plan.notes.empty());
    REQUIRE(plan.adapters.size() == 1);
    CHECK(plan.adapters[0].events.size() == known.adapters[0].events.size());
    REQUIRE(plan.adapters[0].fates.size() == known.adapters[0].fates.size());
    for (size_t i = 0; i < known.adapters[0].fates.size(); ++i) {
      CHECK(plan.adapters[0].fates[i].fate == known.adapters[0].fates[i].fate);
      CHECK(plan.adapters[0].fates[i].buffer == known.adapters[0].fates[i].buffer);
    }
  }
  CHECK(NewMoe("").plan("sglang").not_known ==
        "no class of SGLang is known here for NewMoeForCausalLM");
}

TEST_CASE("the class in a family's file comes before the engine's own") {
  const NewMoe known(vllm_alone(replaced(kNewMoe, "NewMoe", "Mixtral")));
  CHECK(vllm::find_model_class(known.spec, kNewest)->kinds.row.back() == "wo");
  CHECK(vllm::find_model_class(vllm_base("mixtral").spec, kNewest)->kinds.row.back() != "wo");
}

TEST_CASE("a class of a family's file is found by the base's architecture, else it is the first") {
  const std::string two = replaced(kNewMoe, "}]", "}, {\"name\": \"Other\"}]");
  CHECK(find_server_class("vllm", NewMoe(vllm_alone(two)).spec)->at("name").string() ==
        "NewMoeForCausalLM");
  NewMoe other(vllm_alone(two));
  other.spec.architecture = "Other";
  CHECK(find_server_class("vllm", other.spec)->at("name").string() == "Other");
  other.spec.architecture = "";
  CHECK(find_server_class("vllm", other.spec)->at("name").string() == "NewMoeForCausalLM");
}

TEST_CASE("what a class cannot say is refused where it stands") {
  CHECK(fault(R"({"vlm": []})").find("/engines/vlm: no engine of this name has model classes") !=
        std::string::npos);
  CHECK(fault(R"({"vllm": {}})").find("/engines/vllm: found an object, expected an array") !=
        std::string::npos);
  CHECK(fault(R"({"vllm": []})").find("/engines/vllm: names no class") != std::string::npos);
  const auto fault_of = [](const char* from, const char* to) {
    return fault(vllm_alone(replaced(kNewMoe, from, to)));
  };
  CHECK(fault_of("\"layers\"", "\"layer\"").find("5:12: /engines/vllm/0/layer: unknown key") !=
        std::string::npos);
  CHECK(fault_of("\"path\": \"block_sparse_moe", "\"path\": \"mlp")
            .find("/engines/vllm/0/experts/path: not among the class's modules") !=
        std::string::npos);
  CHECK(fault_of("\"layers\": {\"row\": [\"wo\"]}",
                 "\"no_lora\": [{\"error\": \"E: e\", \"before\": \"0.28.5\"}]")
            .find("/engines/vllm/0/no_lora/0/before: not a release of vLLM") != std::string::npos);
}

TEST_CASE("an architecture that vLLM's table does not have is not taken for one of its family") {
  const auto planned = [](const char* architecture) {
    Json config = vllm_base("deepseek_v3").config;
    config.set("architectures", Json::strings({architecture}));
    const ModelSpec spec = make_model_spec(config, "config.json");
    return plan_of("vllm", spec, config);
  };
  CHECK(planned("DeepseekV3ForCausalLM").server.empty());
  CHECK(planned("DeepseekV3ForSequenceClassification").not_known ==
        "DeepseekV3ForSequenceClassification is no class of vLLM that is known here");
  const ServerPlan kimi = planned("KimiK25ForConditionalGeneration");
  REQUIRE(kimi.server.size() == 1);
  CHECK(refusal_text(*kimi.server[0].refusal) ==
        "ValueError: LoRA is not supported for KimiK25ForConditionalGeneration");
  for (const TensorFate& fate : kimi.adapters[0].fates) CHECK(fate.fate == Fate::refused);
}

TEST_CASE("a class has other modules, names and ends in other releases") {
  const auto as_of = [](const char* family, const char* version) {
    return *vllm::find_model_class(vllm_base(family).spec, *EngineVersion::parse(version));
  };
  CHECK(as_of("glm4_moe", "0.30").modules.size() + 1 == as_of("glm4_moe", "0.31").modules.size());
  CHECK(as_of("mixtral", "0.28").names.map("a.gate_proj.b") == "a.gate_proj.b");
  CHECK(as_of("mixtral", "0.29").names.map("a.gate_proj.b") == "a.w1.b");
  CHECK(as_of("dots1", "0.23").start_error.empty());
  CHECK(as_of("dots1", "0.24").start_error.find("until v0.23.0") != std::string::npos);
  CHECK(as_of("exaone_moe", "0.31").start_error.find("sliding_windows") != std::string::npos);
  CHECK(as_of("exaone_moe", "0.32").start_error.empty());
  CHECK_FALSE(as_of("qwen3_5_moe_text", "0.28").embeddings);
  CHECK(as_of("qwen3_5_moe_text", "0.29").embeddings);
}
