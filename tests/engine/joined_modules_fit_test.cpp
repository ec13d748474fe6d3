// --for of modules that the base has whole and a server in parts, and of names that a server knows
// by the hub's files alone.

#include <doctest/doctest.h>

#include <algorithm>
#include <map>

#include "lib/engine/buffers.h"
#include "lib/model/base_model.h"
#include "tests/adapter/goldens.h"
#include "tests/engine/fitted.h"
#include "tests/engine/served_from_folder.h"

using namespace moelora;
using namespace moelora::test;

namespace {

// A pair of the base's own sizes, under the name that memory has.
void add(MadeAdapter& made, const ModelSpec& spec, const std::string& module, int64_t rank = 2) {
  const LinearSpec* linear = spec.find_linear(module);
  REQUIRE_MESSAGE(linear != nullptr, module);
  made.pair(module, {rank, linear->in}, {linear->out, rank});
}

std::vector<double> delta(const Adapter& adapter, const std::string& module) {
  const auto at = adapter.dense.find(module);
  REQUIRE_MESSAGE(at != adapter.dense.end(), module);
  return delta_of(at->second.a, at->second.b, at->second.scaling);
}

std::vector<std::string> targets(const Conversion& c) {
  std::vector<std::string> out;
  for (const Json& entry : c.config.find("target_modules")->items())
    out.push_back(entry.as_string());
  std::sort(out.begin(), out.end());
  return out;
}

bool has_pair(const Conversion& c, const std::string& module) {
  return c.tensors.count(a_name(module)) == 1 && c.tensors.count(b_name(module)) == 1;
}

const std::string kMlp = "model.layers.0.mlp.";

}  // namespace

TEST_CASE("GLM-4's gate_up_proj is cut for vLLM, which takes LoRA on its parts alone") {
  const ModelSpec spec = catalogue_base("glm4").spec;
  MadeAdapter made;
  add(made, spec, kMlp + "gate_up_proj");
  const Conversion c = converted(made, "glm4", fit_for("vllm"));
  CHECK(c.tensors.size() == 4);
  CHECK(has_pair(c, kMlp + "gate_proj"));
  CHECK(has_pair(c, kMlp + "up_proj"));
  std::vector<double> both = delta(c.adapter, kMlp + "gate_proj");
  const std::vector<double> up = delta(c.adapter, kMlp + "up_proj");
  both.insert(both.end(), up.begin(), up.end());
  CHECK(both == delta(c.input.adapter, kMlp + "gate_up_proj"));
  CHECK(targets(c) == std::vector<std::string>{"gate_proj", "up_proj"});
  CHECK(note_of(*c.changes, "joined-modules").find("cut into gate_proj and up_proj") !=
        std::string::npos);
}

TEST_CASE("vLLM adds up_proj below gate_proj to the rows of GLM-4's one module") {
  const BaseModel glm = catalogue_base("glm4");
  const std::string whole = kMlp + "gate_up_proj";
  MadeAdapter made;
  add(made, glm.spec, whole);
  TempFolder temp;
  WriteFolderOptions write;
  write.output.durable = false;
  write_conversion(converted(made, "glm4", fit_for("vllm")), temp.path + "/out", write);
  const ServedAdapter served = served_from_folder(temp.path + "/out");
  const std::vector<TensorMap> values = values_from_folder(temp.path + "/out");
  const EngineVersion version = *EngineVersion::parse("0.33");
  const ServerOptions options;
  const BufferRequest request{served, values, glm.spec, glm.config, options, version};
  std::map<std::string, std::vector<int64_t>> first_rows;
  for (const ServedBlock& block : engines::vllm.blocks(request, engines::vllm.fill(request)))
    first_rows[block.module].push_back(block.out_first);
  const int64_t half = glm.spec.find_linear(whole)->out / 2;
  CHECK(first_rows == std::map<std::string, std::vector<int64_t>>{{whole, {0, half}}});
}

TEST_CASE("parts stay parts where the server takes them, and become the base's module for PEFT") {
  const ModelSpec spec = catalogue_base("glm4").spec;
  const int64_t rows = spec.find_linear(kMlp + "gate_up_proj")->out / 2;
  MadeAdapter parts, whole;
  for (const char* part : {"gate_proj", "up_proj"})
    parts.pair(kMlp + part, {2, spec.hidden}, {rows, 2});
  add(whole, spec, kMlp + "gate_up_proj");
  for (const char* engine : {"vllm", "sglang"}) {
    const Conversion c = converted(parts, "glm4", fit_for(engine));
    CHECK(c.tensors.at(a_name(kMlp + "up_proj")).dim(0) == 2);
    CHECK(note_of(*c.changes, "joined-modules").empty());
  }
  const Conversion peft = converted(parts, "glm4", fit_for("peft"));
  CHECK(peft.tensors.at(a_name(kMlp + "gate_up_proj")).dim(0) == 4);
  CHECK(has_pair(converted(whole, "glm4", fit_for("sglang")), kMlp + "gate_up_proj"));
  CHECK(has_pair(converted(whole, "glm4", fit_for("peft")), kMlp + "gate_up_proj"));
}

// SGLang starts its qkv_proj from q_proj and its gate_up_proj from gate_proj; phi3 and GLM-4 have
// no such module of which zeros could stand beside k_proj or up_proj.
TEST_CASE("a part alone becomes the base's module for SGLang where zeros cannot stand beside it") {
  const ModelSpec glm = catalogue_base("glm4").spec, phi = catalogue_base("phi3").spec;
  MadeAdapter up, k, lone;
  up.pair(kMlp + "up_proj", {2, glm.hidden}, {glm.find_linear(kMlp + "gate_up_proj")->out / 2, 2});
  const Conversion c = converted(up, "glm4", fit_for("sglang"));
  CHECK(has_pair(c, kMlp + "gate_up_proj"));
  CHECK(c.tensors.size() == 2);
  std::vector<double> meant(delta(c.input.adapter, kMlp + "up_proj").size());
  const std::vector<double> own = delta(c.input.adapter, kMlp + "up_proj");
  meant.insert(meant.end(), own.begin(), own.end());
  CHECK(delta(c.adapter, kMlp + "gate_up_proj") == meant);

  const std::string attention = "model.layers.0.self_attn.";
  const int64_t kv = phi.kv_heads * phi.head_dim;
  k.pair(attention + "k_proj", {2, phi.hidden}, {kv, 2});
  CHECK(has_pair(converted(k, "phi3", fit_for("sglang")), attention + "qkv_proj"));
  // q and v it joins itself.
  lone.pair(attention + "q_proj", {2, phi.hidden}, {phi.heads * phi.head_dim, 2});
  lone.pair(attention + "v_proj", {2, phi.hidden}, {kv, 2});
  CHECK(has_pair(converted(lone, "phi3", fit_for("sglang")), attention + "q_proj"));
}

// vLLM, models/inkling/lora.py, does the same to adapters of transformers' names in its newest
// source: wq_du for q_proj, rows of gate and up in turn.
TEST_CASE("Inkling's modules are written for vLLM as its checkpoint has them") {
  const ModelSpec spec = catalogue_base("inkling").spec;
  const std::string layer = "model.language_model.layers.0.", hub = "model.llm.layers.0.";
  MadeAdapter made;
  add(made, spec, layer + "self_attn.q_proj");
  add(made, spec, layer + "mlp.gate_proj");
  add(made, spec, layer + "mlp.up_proj");
  const std::string experts = ".layers.1.mlp.experts.";
  for (const char* name : {"0.gate_proj", "0.up_proj"})
    made.pair("model.language_model" + experts + name, {2, spec.hidden}, {spec.intermediate, 2});
  made.pair("model.language_model" + experts + "0.down_proj", {2, spec.intermediate},
            {spec.hidden, 2});
  const Conversion c = converted(made, "inkling", fit_for("vllm"));
  CHECK(has_pair(c, hub + "attn.wq_du"));
  CHECK(has_pair(c, hub + "mlp.w13_dn"));
  CHECK(has_pair(c, "model.llm" + experts + "0.gate_proj"));
  CHECK(std::none_of(c.tensors.begin(), c.tensors.end(), [](const auto& entry) {
    return entry.first.find("language_model") != std::string::npos;
  }));
  const std::vector<std::string> names = targets(c);
  CHECK(std::count(names.begin(), names.end(), "wq_du") == 1);
  CHECK(std::count(names.begin(), names.end(), "q_proj") == 0);
  CHECK(std::any_of(c.notes.begin(), c.notes.end(), [](const std::string& note) {
    return note.find("names of the hub's files") != std::string::npos;
  }));
  CHECK_THROWS(converted(made, "inkling", fit_for("sglang")));  // not judged
}

TEST_CASE("the thinker's modules are written for vLLM as the hub has them") {
  const ModelSpec spec = catalogue_base("qwen3_omni_moe").spec;
  MadeAdapter made;
  const auto q = std::find_if(spec.linears.begin(), spec.linears.end(), [](const auto& linear) {
    return linear.memory.ends_with("layers.0.self_attn.q_proj");
  });
  REQUIRE(q != spec.linears.end());
  REQUIRE(q->hub != q->memory);
  add(made, spec, q->memory);
  CHECK(has_pair(converted(made, "qwen3_omni_moe", fit_for("vllm")), q->hub));
}
