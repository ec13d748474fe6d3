// Which of vLLM's classes are known here, from which release, and what is said of the others.

#include <doctest/doctest.h>
#include <fmt/format.h>

#include "lib/engine/server_class.h"
#include "lib/engine/vllm/causes.h"
#include "tests/adapter/readme_section.h"
#include "tests/engine/vllm_start.h"

using namespace moelora;
using namespace moelora::test;

// Which of vLLM's classes are known, and how; in REFERENCE.md. MOELORA_UPDATE=1 writes it.
TEST_CASE("REFERENCE.md lists vLLM's classes") {
  const JsonView facts = engine_facts("vllm");
  std::string run, read, without, not_judged, none;
  const auto add = [](std::string& list, const JsonView& entry) {
    list += (list.empty() ? "" : ", ") + entry.at("name").string();
  };
  for (const JsonView& entry : facts.at("classes").items())
    add(entry.find("read_in") ? read : run, entry);
  for (const JsonView& entry : facts.at("classes_without_lora").items()) add(without, entry);
  for (const JsonView& entry : facts.at("not_judged").items()) add(not_judged, entry);
  for (const JsonView& entry : facts.at("out_of_registry").items()) add(none, entry);
  check_reference_section("vllm classes", fmt::format("| known by | classes |\n|---|---|\n"
                                                      "| running them | {} |\n"
                                                      "| reading vLLM's source alone | {} |\n"
                                                      "| reading: no LoRA, in some releases at "
                                                      "least | {} |\n"
                                                      "| reading: not judged | {} |\n"
                                                      "| reading: in no release | {} |\n",
                                                      run, read, without, not_judged, none));
}

TEST_CASE("a class begins, ends or changes with a release") {
  const auto not_known = [](const char* base, const char* release) {
    return VllmStart(base, release).plan({}).not_known;
  };
  CHECK(not_known("qwen4_exp_text", "0.28") ==
        "Qwen4ExpForCausalLM is no class of vLLM that is known here");
  CHECK(not_known("qwen4_exp_text", "0.29") == "");
  CHECK(not_known("kolibri1", "0.32") ==
        "Kolibri1ForCausalLM is no class of vLLM that is known here");
  CHECK(not_known("gemma4_moe", "0.30") ==
        "Gemma4ForConditionalGeneration is no class of vLLM that is known here");
  CHECK(not_known("gemma4_moe", "0.31") == "");
  CHECK(not_known("gemma4", "0.30") == "");
  CHECK(not_known("glm5_next", "0.29") ==
        "Glm5NextForConditionalGeneration is no class of vLLM that is known here");
  CHECK(not_known("laguna", "0.27") == "");
}

TEST_CASE("a class without LoRA ends the start, by its own name before 0.33") {
  const auto start_text = [](const char* base, const char* release) {
    const ServerPlan plan = VllmStart(base, release).plan({});
    return plan.server.empty() ? std::string() : refusal_text(*plan.server[0].refusal);
  };
  CHECK(start_text("dbrx", "0.24") == "ValueError: DbrxForCausalLM does not support LoRA yet.");
  CHECK(start_text("dbrx", "0.33") == "ValueError: LoRA is not supported for DbrxForCausalLM");
  CHECK(start_text("step3p7", "0.33") ==
        "ValueError: LoRA is not supported for Step3p7ForConditionalGeneration");
  CHECK(start_text("diffusion_gemma", "0.33") ==
        "ValueError: LoRA is not supported for DiffusionGemmaForBlockDiffusion");
  CHECK(start_text("diffusion_gemma", "0.32") ==
        "ValueError: DiffusionGemmaForConditionalGeneration does not support LoRA yet.");
  CHECK(start_text("qwen3_omni_moe", "0.28") ==
        "ValueError: Qwen3OmniMoeThinkerForConditionalGeneration does not support LoRA yet.");
  CHECK(start_text("qwen3_omni_moe", "0.29") == "");
  CHECK(start_text("minimax", "0.33").find("until v0.23.0") != std::string::npos);
  CHECK(start_text("deepseek_v4", "0.28") ==
        "ValueError: DeepseekV4ForCausalLM does not support LoRA yet.");
  CHECK(start_text("deepseek_v4", "0.29") == "");
  CHECK(start_text("glm5_next", "0.30") ==
        "ValueError: Glm5NextForConditionalGeneration does not support LoRA yet.");
  CHECK(start_text("kimi_k3", "0.27") ==
        "ValueError: KimiK3ForConditionalGeneration does not support LoRA yet.");
  CHECK(start_text("step3", "0.33") ==
        "ValueError: LoRA is not supported for Step3VLForConditionalGeneration");
  CHECK(start_text("grok", "0.33").find("Grok1ForCausalLM was supported in vLLM until v0.24.0") !=
        std::string::npos);
  CHECK(start_text("grok1", "0.27")
            .find("Grok1ModelForCausalLM was supported in vLLM until v0.24.0") !=
        std::string::npos);
}

TEST_CASE("of a class that takes LoRA and is not judged the plan says why") {
  const auto not_known = [](const char* base, const char* release) {
    return VllmStart(base, release).plan({}).not_known;
  };
  CHECK(not_known("deepseek_v4", "0.29") ==
        "vLLM's class DeepseekV4ForCausalLM is not judged: its attention packs wq_a with wkv, and "
        "each compressor wkv with wgate, which is not described here");
  CHECK(not_known("deepseek_v4", "0.28") == "");
  CHECK(not_known("grok", "0.24").find("is not judged: one class stands for two models") !=
        std::string::npos);
  CHECK(not_known("kimi_k3", "0.24") ==
        "KimiK3ForConditionalGeneration is no class of vLLM that is known here");
  CHECK(not_known("muse_spark", "0.33").find("not judged: its qkv_proj holds the output gate") !=
        std::string::npos);
  CHECK(not_known("muse_spark", "0.32") ==
        "MuseSparkForConditionalGeneration is no class of vLLM that is known here");
  for (const char* base : {"ernie4_5_vl_moe", "hy_v4", "inkling_text"}) {
    CAPTURE(std::string(base));
    CHECK(not_known(base, "0.33").find("is not judged: ") != std::string::npos);
  }
}

TEST_CASE("an architecture that no release has a class of has a text of its own") {
  for (const char* base : {"mistral4", "zaya", "solar_open", "axk2", "aria_text", "dots3_note_text",
                           "inkling2", "inkling2_loop_text", "lara_mini"}) {
    CAPTURE(std::string(base));
    const std::string text = VllmStart(base).plan({}).not_known;
    CHECK(text.starts_with("vLLM has no class "));
    CHECK(text.find("Transformers backend") != std::string::npos);
  }
}

TEST_CASE("of a class that no oracle ran the plan says where it was read") {
  const ServerPlan plan = VllmStart("llama").plan({});
  REQUIRE(plan.notes.size() == 1);
  CHECK(plan.notes[0] ==
        "vLLM's LlamaForCausalLM was not run by the oracle: what it takes was read in its source "
        "of 0.27.0 to 0.33.0");
  CHECK(VllmStart("qwen3_5_moe").plan({}).notes.empty());
}

TEST_CASE("a text model's names reach a wrapper's layers since 0.33, Mistral 3's always") {
  const auto used = [](const char* base, const char* release) {
    const ServerPlan plan = VllmStart(base, release).plan({"model.layers.0.self_attn.q_proj"});
    return event(plan.adapters.at(0), vllm::cause::silent_no_op) == nullptr;
  };
  CHECK_FALSE(used("gemma3", "0.32"));
  CHECK(used("gemma3", "0.33"));
  CHECK(used("mistral3", "0.27"));
}
