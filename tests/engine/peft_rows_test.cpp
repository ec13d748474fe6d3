// PEFT on experts that are rows of one matrix (DBRX), and on parameters in modules of their own
// (JetMoe): what it loads, what it adds, and what is written for it.

#include <doctest/doctest.h>
#include <fmt/format.h>

#include "lib/base/cast.h"
#include "lib/base/error.h"
#include "lib/engine/buffers.h"
#include "tests/engine/fitted.h"

using namespace moelora;
using namespace moelora::test;

namespace {

constexpr int64_t kExperts = 7, kWidth = 26, kHidden = 60, kRank = 3;

const std::string kStem = "transformer.blocks.1.ffn.experts";
constexpr const char* kReleases[] = {"0.17.1", "0.18.1", "0.19.1", "0.21.2"};

MadeAdapter on_rows() {
  MadeAdapter out(R"({"r": 3, "lora_alpha": 6, "peft_type": "LORA", "target_modules": [],
                      "target_parameters": ["mlp.w1", "mlp.v1", "mlp.w2"]})");
  for (const char* module : {".mlp.base_layer.base_layer", ".mlp.base_layer", ".mlp"})
    for (int layer = 0; layer < 2; ++layer)
      out.pair(fmt::format("transformer.blocks.{}.ffn.experts{}", layer, module), {kRank, kHidden},
               {kExperts * kWidth, kRank});
  return out;
}

MadeAdapter numbered(bool shared) {
  MadeAdapter out(R"({"r": 3, "lora_alpha": 6, "peft_type": "LORA",
                      "target_modules": ["gate_proj", "up_proj", "down_proj"]})");
  for (int64_t e = 0; e < kExperts; ++e)
    for (const char* word : {"gate_proj", "up_proj", "down_proj"}) {
      const bool down = std::string_view(word) == "down_proj";
      const auto module = [&](int64_t expert) {
        return fmt::format("{}.{}.{}", kStem, expert, word);
      };
      out.pair(module(e), {kRank, down ? kWidth : kHidden}, {down ? kHidden : kWidth, kRank});
      if (!shared || e == 0) continue;
      if (down)
        out.copy(b_name(module(e)), b_name(module(0)));
      else
        out.copy(a_name(module(e)), a_name(module(0)));
    }
  return out;
}

struct Served {
  BaseModel base;
  ServedAdapter adapter;
  std::vector<TensorMap> values;
  ServerOptions options;
  EngineVersion version;

  Served(const MadeAdapter& made, const std::string& family, const std::string& release)
      : base(catalogue_base(family)), version(parse_engine("peft@" + release).version) {
    adapter.name = adapter.folder = "IN";
    adapter.has_config = true;
    adapter.config = parse_json(made.config(), "adapter_config.json");
    WeightFile file{"adapter_model.safetensors", {}};
    for (const auto& [name, tensor] : made.tensors())
      file.tensors.push_back({name, tensor.dtype(), tensor.shape()});
    adapter.files.push_back(std::move(file));
    values.push_back(made.tensors());
  }

  BufferRequest request() const {
    return {adapter, values, base.spec, base.config, options, version};
  }
  std::vector<ServedBlock> blocks() const {
    return engines::peft.blocks(request(), engines::peft.fill(request()));
  }
  // What PEFT does not use, or refuses.
  std::string lost() const {
    const AdapterPlan plan = engines::peft.plan(request().plan()).adapters.front();
    for (const PlanEvent& event : plan.events) return event.detail;
    for (const TensorFate& fate : plan.fates)
      if (fate.fate != Fate::used) return fate.tensor;
    return plan.fates.empty() ? "nothing is there" : "";
  }
};

// One element of an expert's delta, from what PEFT adds to the whole parameter.
double meant(const MadeAdapter& made, const std::string& module, int64_t row, int64_t column) {
  const std::vector<float> a = floats(made.tensors().at(a_name(module))),
                           b = floats(made.tensors().at(b_name(module)));
  double out = 0;
  for (int64_t k = 0; k < kRank; ++k)
    out += 2.0 * static_cast<double>(b[static_cast<size_t>(row * kRank + k)]) *
           static_cast<double>(a[static_cast<size_t>(k * kHidden + column)]);
  return out;
}

std::string refusal(const MadeAdapter& made, const std::string& family) {
  try {
    converted(made, family, fit_for("peft"));
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("every release of PEFT takes the pairs on rows whole, one Linear each") {
  for (const char* release : kReleases) {
    CAPTURE(release);
    CHECK(Served(on_rows(), "dbrx", release).lost() == "");
  }
  MadeAdapter transposed = on_rows();
  transposed.remove(a_name(kStem + ".mlp")).remove(b_name(kStem + ".mlp"));
  transposed.pair(kStem + ".mlp", {kRank, kExperts * kWidth}, {kHidden, kRank});
  CHECK(Served(transposed, "dbrx", "0.21.2").lost().find("where PEFT's is [3, 60]") !=
        std::string::npos);
}

TEST_CASE("what PEFT adds to an expert's rows is in that expert's delta, down's transposed") {
  const MadeAdapter made = on_rows();
  const std::map<std::string, std::string> modules = {{"gate_proj", ".mlp.base_layer.base_layer"},
                                                      {"up_proj", ".mlp.base_layer"},
                                                      {"down_proj", ".mlp"}};
  for (const char* release : kReleases) {
    size_t blocks = 0;
    for (const ServedBlock& block : Served(made, "dbrx", release).blocks()) {
      REQUIRE(modules.count(block.module) == 1);
      const bool down = block.module == "down_proj";
      REQUIRE(block.a.shape() == Shape{kRank, down ? kWidth : kHidden});
      REQUIRE(block.b.shape() == Shape{down ? kHidden : kWidth, kRank});
      const std::string module =
          fmt::format("transformer.blocks.{}.ffn.experts{}", block.layer, modules.at(block.module));
      const auto delta = delta_of(block.a, block.b, {kRank, block.scale * kRank, false});
      for (const int64_t i : {int64_t{0}, int64_t{7}, kWidth - 1})
        for (const int64_t h : {int64_t{0}, int64_t{31}, kHidden - 1})
          CHECK(delta[static_cast<size_t>(down ? h * kWidth + i : i * kHidden + h)] ==
                meant(made, module, block.expert * kWidth + i, h));
      ++blocks;
    }
    CHECK(blocks == 2 * 3 * kExperts);
  }
}

TEST_CASE("what is written for PEFT on DBRX is what it reads, whatever the release") {
  for (const char* release : kReleases) {
    CAPTURE(release);
    const MadeAdapter made = on_rows();
    const Conversion out = converted(made, "dbrx", fit_for(fmt::format("peft@{}", release)));
    CHECK(out.tensors.size() == made.tensors().size());
    for (const auto& given : made.tensors()) {
      CAPTURE(given.first);
      REQUIRE(out.tensors.count(given.first) == 1);
      CHECK(identical(out.tensors.at(given.first), given.second));
    }
  }
  const Conversion from_numbered = converted(numbered(true), "dbrx", fit_for("peft"));
  CHECK(from_numbered.tensors.count(b_name(kStem + ".mlp.base_layer.base_layer")) == 1);
  CHECK(from_numbered.tensors.size() == 6);
  // Gate and up keep a lora_A and a rank of their own.
  CHECK(from_numbered.tensors.at(a_name(kStem + ".mlp.base_layer")).shape() ==
        Shape{kRank, kHidden});
  CHECK(refusal(numbered(false), "dbrx")
            .find("dbrx has all experts as rows of one matrix, so that one lora_A of PEFT's serves "
                  "all") != std::string::npos);
}

TEST_CASE("what PEFT does with JetMoe, whose attention has experts too, is said to be unknown") {
  MadeAdapter made(R"({"r": 3, "lora_alpha": 6, "peft_type": "LORA", "target_modules": [],
      "target_parameters": ["mlp.input_linear.weight", "mlp.output_linear.weight"]})");
  made.pair("model.layers.1.mlp.input_linear", {kExperts * 3, kHidden}, {2 * kWidth, kExperts * 3});
  made.pair("model.layers.1.mlp.output_linear", {kExperts * 3, kWidth}, {kHidden, kExperts * 3});
  const Served served(made, "jetmoe", "0.21.2");
  CHECK(engines::peft.plan(served.request().plan()).not_known.find("experts of attention") !=
        std::string::npos);
  CHECK(refusal(made, "jetmoe") != "");
}

TEST_CASE("what servers make of DBRX and JetMoe is not known, and a plan says why") {
  const struct {
    const char *engine, *family, *why;
  } cases[] = {
      {"sglang", "dbrx", "DbrxForCausalLM is not judged: its experts are no FusedMoE"},
      {"sglang", "jetmoe", "no class JetMoeForCausalLM: it falls back to a class of Transformers"},
      {"vllm", "jetmoe", "vLLM has no class JetMoeForCausalLM"}};
  for (const auto& one : cases) {
    CAPTURE(one.engine);
    CAPTURE(one.family);
    const Served served(on_rows(), one.family, "0.21.2");
    const EngineChoice found = parse_engine(one.engine);
    const std::string not_known = found.engine
                                      ->plan({{&served.adapter, 1},
                                              served.base.spec,
                                              served.base.config,
                                              served.options,
                                              found.version})
                                      .not_known;
    CHECK_MESSAGE(not_known.find(one.why) != std::string::npos, not_known);
  }
}
