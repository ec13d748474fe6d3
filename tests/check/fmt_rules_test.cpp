// Borders of the rules of the files: what just fires, what just does not, and what it says.

#include <doctest/doctest.h>
#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <cstring>

#include "lib/base/cast.h"
#include "tests/check/goldens.h"

using namespace moelora;
using namespace moelora::test;

namespace {

const std::string kLayer0 = "base_model.model.model.layers.0.";
const std::string kQ = kLayer0 + "self_attn.q_proj.lora_";

Severity worst(const std::vector<Finding>& findings) {
  Severity out = Severity::information;
  for (const Finding& finding : findings) out = std::max(out, finding.severity);
  return out;
}

Tensor filled(const Shape& shape, float value, DType dtype = DType::F32) {
  int64_t elements = 1;
  for (int64_t extent : shape) elements *= extent;
  const std::vector<float> values(static_cast<size_t>(elements), value);
  return Tensor::of_f32(shape, values).map_sources(dtype, [&](const SourcePtr& source) {
    return cast_source(source, dtype);
  });
}

void add_problem(Specimen& s, ReadProblem::Kind kind, const char* file, const Error& error) {
  s.adapter().problems.push_back({kind, file, error});
}

// Without weights of its own.
void unread(Specimen& s) {
  s.adapter().files.clear();
  s.adapter().own_files.clear();
  s.adapter().main_file.clear();
}

}  // namespace

TEST_CASE("a fault of the adapter's own file is told once, though the file is read twice") {
  const Judgement judgement = judge_specimen("qwen3_moe_per_expert", [](Specimen& s) {
    unread(s);
    const Error error("adapter/adapter_model.safetensors: a", "has 3 bytes");
    add_problem(s, ReadProblem::Kind::bad_weights, "", error);
    add_problem(s, ReadProblem::Kind::bad_weights, "adapter_model.safetensors", error);
  });
  const auto found = found_by(judgement, "FMT001");
  REQUIRE(found.size() == 1);
  CHECK(found[0].where == "a");
  CHECK(found[0].message == "has 3 bytes");
  CHECK(found_by(judgement, "FMT002").empty());
}

TEST_CASE("a malformed file beside the adapter matters to SGLang alone") {
  const auto change = [](Specimen& s) {
    add_problem(s, ReadProblem::Kind::bad_weights, "other.safetensors",
                Error("adapter/other.safetensors", "has 3 bytes"));
  };
  CHECK(worst(found_by(judge_specimen("qwen3_moe_per_expert", change), "FMT001")) ==
        Severity::warning);
  CHECK(worst(found_by(judge_specimen("qwen3_moe_per_expert", change, "sglang"), "FMT001")) ==
        Severity::error);
  CHECK(worst(found_by(judge_specimen("qwen3_moe_per_expert", change, "vllm"), "FMT001")) ==
        Severity::information);
}

TEST_CASE("each way in which weights cannot be read has one rule") {
  const auto rules_of = [](void (*change)(Specimen&)) {
    std::vector<std::string_view> out;
    for (const Finding& f : judge_specimen("qwen3_moe_per_expert", change).findings)
      if (f.severity == Severity::error) out.push_back(f.rule->id);
    return out;
  };
  using Ids = std::vector<std::string_view>;
  CHECK(rules_of([](Specimen& s) {
          unread(s);
          add_problem(s, ReadProblem::Kind::wrong_kind, "",
                      Error("adapter/adapter_model.safetensors", "is a Git LFS pointer"));
        }) == Ids{"FMT021"});
  CHECK(rules_of([](Specimen& s) {
          unread(s);
          s.adapter().listing = {"adapter_config.json"};
          add_problem(s, ReadProblem::Kind::no_weights, "", Error("adapter", "holds no weights"));
        }) == Ids{"FMT002"});
  CHECK(rules_of([](Specimen& s) {
          unread(s);
          s.adapter().listing = {"adapter_config.json", "adapter_model.bin"};
          add_problem(s, ReadProblem::Kind::bad_weights, "", Error("adapter", "runs code"));
        }) == Ids{"FMT003"});
  CHECK(rules_of([](Specimen& s) {
          unread(s);
          add_problem(s, ReadProblem::Kind::bad_shards, "", Error("adapter", "a shard is missing"));
        }) == Ids{"FMT004"});
  CHECK(rules_of([](Specimen& s) {
          unread(s);
          s.adapter().listing = {"adapter_config.json", "adapter_model-00001-of-00002.safetensors"};
          add_problem(s, ReadProblem::Kind::bad_weights, "", Error("adapter", "has no index"));
        }) == Ids{"FMT004"});
}

TEST_CASE("shards are an error for PEFT and vLLM, information for SGLang, else a warning") {
  const auto sharded = [](Specimen& s) { s.adapter().sharded = true; };
  const auto severity = [&](std::string_view engine) {
    return worst(found_by(judge_specimen("qwen3_moe_per_expert", sharded, engine), "FMT004"));
  };
  CHECK(severity("") == Severity::warning);
  CHECK(severity("peft") == Severity::error);
  CHECK(severity("vllm") == Severity::error);
  CHECK(severity("sglang") == Severity::information);
}

TEST_CASE("orphans are gathered by what is missing") {
  const Judgement judgement = judge_specimen("qwen3_moe_per_expert", [](Specimen& s) {
    s.remove("o_proj.lora_B");
    s.remove("layers.0.self_attn.k_proj.lora_A");
  });
  const auto found = found_by(judgement, "FMT006");
  REQUIRE(found.size() == 2);
  CHECK(found[0].names.size() == 1);
  CHECK(found[0].message == "has no lora_A beside it");
  CHECK(found[1].names.size() == 2);
  CHECK(found[1].message == "has no lora_B beside it");
}

TEST_CASE("an empty factor is an error, an up without elements on both sides is none") {
  const auto empty_up = [](Specimen& s) {
    for (int layer : {0, 1})
      for (int e = 0; e < 8; ++e)
        for (const char side : {'A', 'B'})
          s.set(
              fmt::format("base_model.model.model.layers.{}.mlp.experts.{}.up_proj.lora_{}.weight",
                          layer, e, side),
              s.zeros({0}));
  };
  const Judgement judgement = judge_specimen("qwen3_moe_per_expert", empty_up);
  INFO(told(judgement));
  CHECK(worst(found_by(judgement, "FMT007")) == Severity::warning);  // this base has a gate
  for (const Shape& shape : {Shape{0}, Shape{256}, Shape{0, 64}, Shape{}}) {
    CAPTURE(to_string(shape));
    Specimen specimen = make_specimen("qwen3_moe_per_expert");
    specimen.set(kQ + "A.weight", specimen.zeros(shape));
    CHECK(worst(found_by(validate(deployment_of(std::move(specimen), "")), "FMT007")) ==
          Severity::error);
  }
}

TEST_CASE("the first value that is not finite is named by its coordinates, in all float types") {
  for (DType dtype : {DType::F32, DType::F16, DType::BF16, DType::F64}) {
    CAPTURE(dtype_name(dtype));
    Specimen specimen = make_specimen("qwen3_moe_per_expert");
    std::vector<float> values(4 * 64, 0.5F);
    values[3 * 64 + 17] = INFINITY;
    values[3 * 64 + 18] = NAN;
    const Tensor tensor = Tensor::of_f32({4, 64}, values);
    specimen.set(kQ + "A.weight", tensor.map_sources(dtype, [&](const SourcePtr& source) {
      return cast_source(source, dtype);
    }));
    const auto found = found_by(validate(deployment_of(std::move(specimen), "")), "FMT008");
    REQUIRE(found.size() == 1);
    CHECK(found[0].message == "1 NaN and 1 infinite values in 1 tensor, the first at [3, 17]");
    CHECK(found[0].names == std::vector<std::string>{kQ + "A.weight"});
  }
}

TEST_CASE("a lora_B is untrained below a standard deviation of 1e-6, and not above") {
  const auto severity_of = [](float a, float b) {
    Specimen specimen = make_specimen("qwen3_moe_per_expert");
    std::vector<float> values(64 * 4, b);
    for (size_t i = 0; i < values.size(); i += 2) values[i] = -b;
    specimen.set(kQ + "B.weight", Tensor::of_f32({64, 4}, values));
    if (a == 0) specimen.set(kQ + "A.weight", specimen.zeros({4, 64}));
    return found_by(validate(deployment_of(std::move(specimen), "")), "FMT009").size();
  };
  CHECK(severity_of(1, 0) == 1);
  CHECK(severity_of(1, 0.9e-6F) == 1);
  CHECK(severity_of(1, 1.1e-6F) == 0);
  CHECK(severity_of(0, 0) == 0);  // both zero: written to fill a place
}

TEST_CASE("an adapter whose every lora_B is zero is the base model, an error") {
  const Judgement judgement = judge_specimen("qwen3_moe_per_expert", [](Specimen& s) {
    for (auto& [name, tensor] : s.tensors())
      if (name.find("lora_B") != std::string::npos)
        tensor = Tensor::zeros(tensor.dtype(), tensor.shape());
  });
  const auto found = found_by(judgement, "FMT009");
  REQUIRE(found.size() == 1);
  CHECK(found[0].severity == Severity::error);
  CHECK(found[0].message ==
        "is zero, as training starts: 56 of 56 low-rank pairs change nothing, this adapter is the "
        "base model");
}

TEST_CASE("an embedding starts with a lora_A of zeros, which is only information") {
  const Judgement judgement = judge_golden("gpt_oss", "embed_lm_head", true).judgement;
  CHECK(worst(found_by(judgement, "FMT009")) == Severity::information);
}

TEST_CASE("the token shared, where a number is expected, is named") {
  const Judgement judgement = judge_specimen("qwen3_moe_per_expert", [](Specimen& s) {
    s.rename(".experts.0.gate_proj", ".experts.shared.gate_proj");
  });
  const auto found = found_by(judgement, "FMT010");
  REQUIRE(found.size() == 1);
  CHECK(found[0].message.find("\"shared\" stands where") != std::string::npos);
}

TEST_CASE("an order of lora_B that cannot matter, or is marked, is not asked for") {
  CHECK(found_by(judge_golden("qwen3_moe", "peft_params", true).judgement, "FMT011").size() == 1);
  CHECK(found_by(judge_golden("qwen3_moe", "peft_params_grouped_b", true).judgement, "FMT011")
            .empty());
  CHECK(found_by(judge_specimen("qwen3_moe_stacked_params", [](Specimen&) {}), "FMT011").empty());
  const auto unsloth_rank_1 = [](Specimen& s) {
    s.config().erase("moelora");
    s.config().erase("lora_B_layout");
    s.config().set("base_model_name_or_path", "unsloth/Qwen3-30B-A3B");
    s.config().set("r", 1);
    for (auto& [name, tensor] : s.tensors())
      tensor = name.find("lora_A") != std::string::npos ? tensor.slice(0, 0, tensor.dim(0) / 4)
                                                        : tensor.slice(1, 0, tensor.dim(1) / 4);
  };
  const Judgement judgement = judge_specimen("qwen3_moe_stacked_params", unsloth_rank_1);
  INFO(told(judgement));
  CHECK(found_by(judgement, "FMT011").empty());
}

TEST_CASE("reversed roles matter to the servers that read stacked pairs") {
  const auto severity = [](const std::vector<std::string>& engines) {
    return worst(found_by(
        judge_golden("qwen3_moe", "peft_params_swapped_roles", true, engines).judgement, "FMT013"));
  };
  CHECK(severity({}) == Severity::warning);
  CHECK(severity({"vllm"}) == Severity::error);
  CHECK(severity({"peft@0.18"}) == Severity::information);
}

TEST_CASE("dtypes that are no floats are errors, F64 is a warning, the float types are sound") {
  const auto severity = [](DType dtype) {
    Specimen specimen = make_specimen("qwen3_moe_per_expert");
    specimen.set(kQ + "A.weight",
                 is_float(dtype) ? filled({4, 64}, 0.5F, dtype) : specimen.zeros({4, 64}, dtype));
    const auto found = found_by(validate(deployment_of(std::move(specimen), "")), "FMT016");
    return found.empty() ? Severity::information : worst(found);
  };
  for (DType dtype : {DType::F32, DType::F16, DType::BF16})
    CHECK(severity(dtype) == Severity::information);
  CHECK(severity(DType::F64) == Severity::warning);
  for (DType dtype : {DType::I8, DType::U8, DType::I32, DType::F8_E4M3, DType::BOOL})
    CHECK(severity(dtype) == Severity::error);
}

TEST_CASE("an even share of the experts is told from a smaller rank by the rank of the config") {
  const auto with_rows = [](int64_t per_expert_rows) {
    Specimen s = make_specimen("qwen3_moe_stacked_params");
    for (auto& [name, tensor] : s.tensors()) {
      if (name.find(".experts.") == std::string::npos) continue;
      const bool a = name.find("lora_A") != std::string::npos;
      tensor = tensor.slice(a ? 0 : 1, 0, per_expert_rows);
    }
    return validate(deployment_of(std::move(s), ""));
  };
  for (const int64_t local : {1, 2, 4}) {
    const Judgement judgement = with_rows(local * 4);
    INFO(told(judgement));
    CHECK(found_by(judgement, "FMT017").size() == 1);
    CHECK(found_by(judgement, "CFG002").empty());
  }
  const Judgement smaller = with_rows(24);  // rank 3 of 8 experts; 6 experts are no even share
  CHECK(found_by(smaller, "FMT017").empty());
  CHECK(worst(found_by(smaller, "CFG002")) == Severity::error);
}

TEST_CASE("equal experts are found in every layout, and what would collapse them is named") {
  for (const std::string id : {"gpt_oss_stacked", "qwen3_moe_per_expert"}) {
    CAPTURE(id);
    Specimen s = make_specimen(id);
    for (auto& [name, tensor] : s.tensors()) {
      if (name.find("experts") == std::string::npos || name.find("lora_A") == std::string::npos ||
          name.find("down_proj") != std::string::npos)
        continue;
      tensor = filled(tensor.shape(), 0.25F);
    }
    const auto found = found_by(validate(deployment_of(std::move(s), "")), "FMT018");
    REQUIRE(found.size() == 1);
    CHECK(found[0].severity == Severity::information);
    CHECK(found[0].message.find("one for all experts") != std::string::npos);
    CHECK(found[0].fix.find("--to shared-outer") != std::string::npos);
  }
  CHECK(found_by(judge_specimen("qwen3_moe_per_expert", [](Specimen&) {}), "FMT018").empty());
  CHECK(found_by(judge_specimen("qwen3_moe_shared_outer", [](Specimen&) {}), "FMT018").empty());
  const auto tinker = judge_golden("gpt_oss", "tinker.build_lora_adapter", true).judgement;
  CHECK(found_by(tinker, "FMT018").size() == 1);  // an expanded shared outer
}

TEST_CASE("experts that were never trained are no equal experts") {
  const Judgement judgement = judge_specimen("qwen3_moe_per_expert", [](Specimen& s) {
    for (auto& [name, tensor] : s.tensors())
      if (name.find("experts") != std::string::npos && name.find("lora_B") != std::string::npos)
        tensor = Tensor::zeros(tensor.dtype(), tensor.shape());
  });
  CHECK(found_by(judgement, "FMT018").empty());
}

TEST_CASE("F16 overflows where value times scale passes 65504, not before") {
  const auto count = [](float value) {  // the scale is 8 / 4
    Specimen s = make_specimen("qwen3_moe_per_expert");
    s.set(kQ + "B.weight", filled({64, 4}, value, DType::F16));
    size_t errors = 0;
    for (const Finding& f : found_by(validate(deployment_of(std::move(s), "")), "FMT020"))
      errors += f.severity == Severity::error ? 1U : 0U;
    return errors;
  };
  CHECK(count(32752) == 0);  // 65504
  CHECK(count(32768) == 1);
}

TEST_CASE("wide factors are told beside a BF16 base model, with what is lost") {
  const Judgement judgement = judge_specimen("qwen3_moe_per_expert", [](Specimen&) {});
  const auto found = found_by(judgement, "FMT020");
  REQUIRE(found.size() == 1);
  CHECK(found[0].message.find("a value changes by 0.39 % at most") != std::string::npos);
  const auto f32_base = [](Specimen& s) { s.base_config.set("dtype", "float32"); };
  CHECK(found_by(judge_specimen("qwen3_moe_per_expert", f32_base), "FMT020").empty());
  CHECK(found_by(judge_golden("gpt_oss", "peft_params_bf16", true).judgement, "FMT020").empty());
}

TEST_CASE("what only the reader refuses is told in its words") {
  const Judgement judgement = judge_specimen("qwen3_moe_per_expert", [](Specimen& s) {
    s.set(kQ.substr(17) + "A.weight", s.random({4, 64}));  // the same factor without the prefix
  });
  INFO(told(judgement));
  const auto found = found_by(judgement, "FMT021");
  REQUIRE(found.size() == 1);
  CHECK(found[0].message.find("names the same factor as") != std::string::npos);
}
