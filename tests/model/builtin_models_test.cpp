// The shapes of well-known models, written out: what their model cards and files say.
#include <doctest/doctest.h>

#include <map>

#include "lib/base/error.h"
#include "lib/model/base_model.h"
#include "lib/model/model_spec.h"

namespace moelora {
namespace {

class Shapes {
 public:
  Shapes(const std::string& model, Form form) {
    for (auto& [name, shape] : open_base(model).spec.tensors(form)) shapes_[name] = shape;
  }

  // "[32, 2880, 5760]", "absent"
  std::string operator[](const std::string& name) const {
    const auto found = shapes_.find(name);
    return found == shapes_.end() ? "absent" : to_string(found->second);
  }

 private:
  std::map<std::string, Shape> shapes_;
};

}  // namespace

TEST_CASE("Every built-in model has a sound spec") {
  for (const std::string& name : builtin_models()) {
    CAPTURE(name);
    const BaseModel base = open_base(name);
    CHECK(base.spec.layers > 0);
    CHECK(base.spec.find_linear("lm_head") != base.spec.find_linear("language_model.lm_head"));
    CHECK(base.folder == "");
    CHECK(base.origin.rfind("built-in config of ", 0) == 0);
  }
  CHECK(builtin_models().size() >= 12);
}

TEST_CASE("gpt-oss-20b and -120b") {
  const Shapes small("openai/gpt-oss-20b", Form::memory);
  CHECK(small["model.layers.23.mlp.experts.gate_up_proj"] == "[32, 2880, 5760]");
  CHECK(small["model.layers.23.mlp.experts.gate_up_proj_bias"] == "[32, 5760]");
  CHECK(small["model.layers.23.mlp.experts.down_proj"] == "[32, 2880, 2880]");
  CHECK(small["model.layers.23.mlp.experts.down_proj_bias"] == "[32, 2880]");
  CHECK(small["model.layers.23.self_attn.q_proj.weight"] == "[4096, 2880]");
  CHECK(small["model.layers.23.self_attn.k_proj.weight"] == "[512, 2880]");
  CHECK(small["model.layers.23.self_attn.o_proj.weight"] == "[2880, 4096]");
  CHECK(small["model.layers.23.self_attn.o_proj.bias"] == "[2880]");
  CHECK(small["model.layers.23.mlp.router.weight"] == "[32, 2880]");
  CHECK(small["model.layers.24.mlp.router.weight"] == "absent");
  CHECK(small["model.embed_tokens.weight"] == "[201088, 2880]");
  const Shapes large("openai/gpt-oss-120b", Form::memory);
  CHECK(large["model.layers.35.mlp.experts.gate_up_proj"] == "[128, 2880, 5760]");
  CHECK(large["model.layers.36.mlp.router.weight"] == "absent");

  const ModelSpec spec = open_base("openai/gpt-oss-20b").spec;
  CHECK(spec.activation == "gpt_oss_swiglu");
  CHECK(spec.gate_up_order == GateUpOrder::interleaved);
  CHECK(spec.top_k == 4);
  CHECK(spec.hub_mxfp4);
  CHECK_FALSE(open_base("unsloth/gpt-oss-20b-BF16").spec.hub_mxfp4);
}

TEST_CASE("Qwen3-30B-A3B and -235B-A22B") {
  const Shapes hub("Qwen/Qwen3-30B-A3B", Form::hub);
  CHECK(hub["model.layers.47.mlp.experts.127.gate_proj.weight"] == "[768, 2048]");
  CHECK(hub["model.layers.47.mlp.experts.127.down_proj.weight"] == "[2048, 768]");
  CHECK(hub["model.layers.47.mlp.experts.128.down_proj.weight"] == "absent");
  CHECK(hub["model.layers.0.self_attn.q_proj.weight"] == "[4096, 2048]");
  CHECK(hub["model.layers.0.self_attn.k_proj.weight"] == "[512, 2048]");
  CHECK(hub["model.layers.0.mlp.gate_proj.weight"] == "absent");
  const Shapes memory("Qwen/Qwen3-235B-A22B", Form::memory);
  CHECK(memory["model.layers.93.mlp.experts.gate_up_proj"] == "[128, 3072, 4096]");
  CHECK(memory["model.layers.93.self_attn.q_proj.weight"] == "[8192, 4096]");
}

TEST_CASE("Mixtral-8x7B") {
  const Shapes hub("mistralai/Mixtral-8x7B-v0.1", Form::hub);
  CHECK(hub["model.layers.31.block_sparse_moe.experts.7.w1.weight"] == "[14336, 4096]");
  CHECK(hub["model.layers.31.block_sparse_moe.experts.7.w2.weight"] == "[4096, 14336]");
  CHECK(hub["model.layers.31.block_sparse_moe.gate.weight"] == "[8, 4096]");
  CHECK(hub["model.layers.31.self_attn.v_proj.weight"] == "[1024, 4096]");
}

TEST_CASE("DeepSeek-V3 and Kimi-K2 have latent attention") {
  const Shapes deepseek("deepseek-ai/DeepSeek-V3", Form::hub);
  CHECK(deepseek["model.layers.0.self_attn.q_a_proj.weight"] == "[1536, 7168]");
  CHECK(deepseek["model.layers.0.self_attn.q_b_proj.weight"] == "[24576, 1536]");
  CHECK(deepseek["model.layers.0.self_attn.kv_a_proj_with_mqa.weight"] == "[576, 7168]");
  CHECK(deepseek["model.layers.0.self_attn.kv_b_proj.weight"] == "[32768, 512]");
  CHECK(deepseek["model.layers.0.self_attn.o_proj.weight"] == "[7168, 16384]");
  CHECK(deepseek["model.layers.2.mlp.gate_proj.weight"] == "[18432, 7168]");
  CHECK(deepseek["model.layers.3.mlp.gate_proj.weight"] == "absent");
  CHECK(deepseek["model.layers.3.mlp.experts.255.up_proj.weight"] == "[2048, 7168]");
  CHECK(deepseek["model.layers.3.mlp.shared_experts.down_proj.weight"] == "[7168, 2048]");
  CHECK(deepseek["model.layers.61.mlp.gate.weight"] == "absent");
  const Shapes kimi("moonshotai/Kimi-K2-Instruct", Form::hub);
  CHECK(kimi["model.layers.0.self_attn.q_b_proj.weight"] == "[12288, 1536]");
  CHECK(kimi["model.layers.0.self_attn.kv_b_proj.weight"] == "[16384, 512]");
  CHECK(kimi["model.layers.0.self_attn.o_proj.weight"] == "[7168, 8192]");
  CHECK(kimi["model.layers.1.mlp.experts.383.up_proj.weight"] == "[2048, 7168]");
}

TEST_CASE("GLM-4.5") {
  const Shapes hub("zai-org/GLM-4.5", Form::hub);
  CHECK(hub["model.layers.91.mlp.experts.159.gate_proj.weight"] == "[1536, 5120]");
  CHECK(hub["model.layers.2.mlp.gate_proj.weight"] == "[12288, 5120]");
  CHECK(hub["model.layers.0.self_attn.q_proj.weight"] == "[12288, 5120]");
  CHECK(hub["model.layers.0.self_attn.q_proj.bias"] == "[12288]");
  CHECK(hub["model.layers.0.self_attn.o_proj.bias"] == "absent");
}

TEST_CASE("Qwen3-Next doubles q_proj by the output gate and has linear attention between") {
  const Shapes hub("Qwen/Qwen3-Next-80B-A3B-Instruct", Form::hub);
  CHECK(hub["model.layers.3.self_attn.q_proj.weight"] == "[8192, 2048]");
  CHECK(hub["model.layers.3.self_attn.k_proj.weight"] == "[512, 2048]");
  CHECK(hub["model.layers.3.self_attn.o_proj.weight"] == "[2048, 4096]");
  CHECK(hub["model.layers.2.self_attn.q_proj.weight"] == "absent");
  CHECK(hub["model.layers.2.linear_attn.in_proj_qkvz.weight"] == "[12288, 2048]");
  CHECK(hub["model.layers.2.linear_attn.in_proj_ba.weight"] == "[64, 2048]");
  CHECK(hub["model.layers.2.linear_attn.out_proj.weight"] == "[2048, 4096]");
  CHECK(hub["model.layers.47.mlp.experts.511.down_proj.weight"] == "[2048, 512]");
  CHECK(hub["model.layers.47.mlp.shared_expert_gate.weight"] == "[1, 2048]");
}

TEST_CASE("Llama-4-Scout lies under language_model") {
  const Shapes hub("meta-llama/Llama-4-Scout-17B-16E-Instruct", Form::hub);
  const std::string layer = "language_model.model.layers.47.";
  CHECK(hub[layer + "feed_forward.experts.gate_up_proj"] == "[16, 5120, 16384]");
  CHECK(hub[layer + "feed_forward.experts.down_proj"] == "[16, 8192, 5120]");
  CHECK(hub[layer + "feed_forward.shared_expert.gate_proj.weight"] == "[8192, 5120]");
  CHECK(hub[layer + "feed_forward.router.weight"] == "[16, 5120]");
  CHECK(hub[layer + "self_attn.q_proj.weight"] == "[5120, 5120]");
  CHECK(hub["language_model.lm_head.weight"] == "[202048, 5120]");
}

TEST_CASE("MiniMax-M2 is square where gate and up are fused") {
  const Shapes memory("MiniMaxAI/MiniMax-M2", Form::memory);
  CHECK(memory["model.layers.61.mlp.experts.gate_up_proj"] == "[256, 3072, 3072]");
  const Shapes hub("MiniMaxAI/MiniMax-M2", Form::hub);
  CHECK(hub["model.layers.61.block_sparse_moe.experts.255.w3.weight"] == "[1536, 3072]");
  CHECK(hub["model.layers.61.self_attn.q_proj.weight"] == "[6144, 3072]");
}

TEST_CASE("Qwen3-VL's experts are [E, in, out] on the hub and [E, out, in] in memory") {
  const std::string experts = "model.language_model.layers.47.mlp.experts.";
  const Shapes hub("Qwen/Qwen3-VL-30B-A3B-Instruct", Form::hub);
  CHECK(hub[experts + "gate_up_proj"] == "[128, 2048, 1536]");
  CHECK(hub[experts + "down_proj"] == "[128, 768, 2048]");
  const Shapes memory("Qwen/Qwen3-VL-30B-A3B-Instruct", Form::memory);
  CHECK(memory[experts + "gate_up_proj"] == "[128, 1536, 2048]");
  CHECK(memory[experts + "down_proj"] == "[128, 2048, 768]");
  CHECK(memory["lm_head.weight"] == "[151936, 2048]");
}

TEST_CASE("Trainers' names normalize to the model's own") {
  SUBCASE("Tinker's gpt-oss") {
    const ModelSpec spec = open_base("openai/gpt-oss-20b").spec;
    CHECK(spec.normalised("model.layers.3.attn.q_proj") == "model.layers.3.self_attn.q_proj");
    CHECK(spec.normalised("model.unembed_tokens") == "lm_head");
    CHECK(spec.normalised("unembed_tokens") == "lm_head");
    CHECK(spec.normalised("model.lm_head") == "lm_head");
    CHECK(spec.normalised("model.layers.3.mlp.experts.w1") == "model.layers.3.mlp.experts.w1");
    CHECK(spec.normalised("model.layers.3.cross_attn.q_proj") ==
          "model.layers.3.cross_attn.q_proj");
  }
  SUBCASE("Mixtral's hub names") {
    const ModelSpec spec = open_base("mistralai/Mixtral-8x7B-v0.1").spec;
    CHECK(spec.normalised("model.layers.3.block_sparse_moe.gate") == "model.layers.3.mlp.gate");
    CHECK(spec.normalised("model.layers.3.block_sparse_moe.experts.5.w1") ==
          "model.layers.3.mlp.experts.5.w1");
    CHECK(spec.find_linear("model.layers.3.block_sparse_moe.gate") ==
          spec.find_linear("model.layers.3.mlp.gate"));
  }
  SUBCASE("lm_head of a model under a prefix") {
    const ModelSpec spec = open_base("meta-llama/Llama-4-Scout-17B-16E-Instruct").spec;
    CHECK(spec.normalised("unembed_tokens") == "language_model.lm_head");
  }
}

TEST_CASE("Names of built-in models ignore case, unknown ones list what was tried") {
  CHECK(open_base("OpenAI/GPT-OSS-20B").spec.experts == 32);
  CHECK_FALSE(find_named_base("no-such-org/no-such-model").has_value());
  try {
    open_base("no-such-org/no-such-model");
    FAIL("expected an Error");
  } catch (const Error& error) {
    CHECK(error.text().find("no such file or folder") != std::string::npos);
    CHECK(error.text().find("no built-in model has this name") != std::string::npos);
    CHECK(error.text().find("models--no-such-org--no-such-model") != std::string::npos);
    CHECK(error.hint().find("openai/gpt-oss-20b") != std::string::npos);
  }
}

}  // namespace moelora
