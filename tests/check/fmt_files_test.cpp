// Borders of the rules that say why an adapter could not be read.

#include <doctest/doctest.h>

#include "lib/check/specimen.h"
#include "tests/check/goldens.h"

using namespace moelora;
using namespace moelora::test;

namespace {

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

TEST_CASE("a fault of the adapter's own file is reported once, though the file is read twice") {
  const RuleResults results = check_specimen("qwen3_moe_per_expert", [](Specimen& s) {
    unread(s);
    const Error error(in_file("adapter/adapter_model.safetensors", "a"), "has 3 bytes");
    add_problem(s, ReadProblem::Kind::bad_weights, "", error);
    add_problem(s, ReadProblem::Kind::bad_weights, "adapter_model.safetensors", error);
  });
  const auto found = found_by(results, "FMT001");
  REQUIRE(found.size() == 1);
  CHECK(found[0].where == "a");
  CHECK(found[0].message == "has 3 bytes");
  CHECK(found_by(results, "FMT002").empty());
}

TEST_CASE("a malformed file beside the adapter matters to SGLang alone") {
  const auto change = [](Specimen& s) {
    add_problem(s, ReadProblem::Kind::bad_weights, "other.safetensors",
                Error("adapter/other.safetensors", "has 3 bytes"));
  };
  CHECK(worst(found_by(check_specimen("qwen3_moe_per_expert", change), "FMT001")) ==
        Severity::warning);
  CHECK(worst(found_by(check_specimen("qwen3_moe_per_expert", change, "sglang"), "FMT001")) ==
        Severity::error);
  CHECK(worst(found_by(check_specimen("qwen3_moe_per_expert", change, "vllm"), "FMT001")) ==
        Severity::information);
}

TEST_CASE("each way in which weights cannot be read has one rule") {
  const auto rules_of = [](void (*change)(Specimen&)) {
    std::vector<std::string_view> out;
    for (const Finding& f : check_specimen("qwen3_moe_per_expert", change).findings)
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
    return worst(found_by(check_specimen("qwen3_moe_per_expert", sharded, engine), "FMT004"));
  };
  CHECK(severity("") == Severity::warning);
  CHECK(severity("peft") == Severity::error);
  CHECK(severity("vllm") == Severity::error);
  CHECK(severity("sglang") == Severity::information);
}

TEST_CASE("what only the reader refuses is reported in its words") {
  const RuleResults results = check_specimen("qwen3_moe_per_expert", [](Specimen& s) {
    s.set("model.layers.0.self_attn.q_proj.lora_A.weight",
          s.random({4, 64}));  // the same factor without the prefix
  });
  INFO(findings_text(results));
  const auto found = found_by(results, "FMT021");
  REQUIRE(found.size() == 1);
  CHECK(found[0].message.find("names the same factor as") != std::string::npos);
}
