#include "lib/adapter/init.h"

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "tests/adapter/made_adapter.h"
#include "tests/io/error_text.h"
#include "tests/io/temp_folder.h"
#include "tests/model/catalogue.h"
#include "tests/model/loader_bases.h"

using namespace moelora;
using namespace moelora::test;

namespace {

using Names = std::vector<std::string>;

InitOptions options(const std::string& family, const Names& targets, const std::string& to) {
  InitOptions out;
  out.base = catalogue_entry(family).config;
  out.rank = 3;
  out.targets = targets;
  out.to = to;
  return out;
}

Conversion fresh(const std::string& family, const Names& targets, const std::string& to) {
  return make_adapter(options(family, targets, to));
}

// The names of the written modules, in order.
Names modules(const Conversion& adapter) {
  Names out;
  for (const auto& entry : adapter.tensors) {
    const TensorName name = parse_tensor_name(entry.first);
    if (name.part == TensorPart::lora_a) out.push_back(name.module);
  }
  return out;
}

// The 2-D weights of a hub file whose names hold one of `words`: in and out by module.
std::map<std::string, std::pair<int64_t, int64_t>> hub_weights(const std::string& family,
                                                               const Names& words) {
  std::map<std::string, std::pair<int64_t, int64_t>> out;
  for (const auto& [name, shape] : catalogue_entry(family).saved)
    for (const std::string& word : words)
      if (shape.size() == 2 && name.find(word) != std::string::npos)
        out[name.substr(0, name.size() - 7)] = {shape[1], shape[0]};
  return out;
}

void check_shapes(const Conversion& adapter,
                  const std::map<std::string, std::pair<int64_t, int64_t>>& expected) {
  CHECK(adapter.tensors.size() == 2 * expected.size());
  for (const auto& entry : expected) {
    const auto& module = entry.first;
    const auto& dims = entry.second;
    CAPTURE(module);
    REQUIRE(adapter.tensors.count(a_name(module)) == 1);
    CHECK(adapter.tensors.at(a_name(module)).shape() == Shape{3, dims.first});
    CHECK(adapter.tensors.at(b_name(module)).shape() == Shape{dims.second, 3});
  }
}

std::string fault(const InitOptions& options) {
  return error_text([&] { make_adapter(options); });
}

std::string hint(const InitOptions& options) {
  return error_hint([&] { make_adapter(options); });
}

}  // namespace

TEST_CASE("each target is a pair of the base's own names and dims") {
  check_shapes(fresh("qwen3_moe", {"experts"}, "peft-linear"),
               hub_weights("qwen3_moe", {".experts."}));
  check_shapes(fresh("mixtral", {"attention", "experts"}, "peft-linear"),
               hub_weights("mixtral", {".experts.", ".self_attn."}));
  check_shapes(fresh("deepseek_v3", {"shared", "mlp"}, "peft-linear"),
               hub_weights("deepseek_v3", {".shared_experts.", "layers.0.mlp."}));
  check_shapes(fresh("qwen3_moe", {"lm_head"}, "peft-linear"),
               hub_weights("qwen3_moe", {"lm_head"}));
}

TEST_CASE("experts take the form of the layout") {
  const std::string stem = "model.layers.1.mlp.experts";
  const auto shape = [&](const std::string& to, const std::string& name) {
    return fresh("qwen3_moe", {"experts"}, to)
        .tensors.at("base_model.model." + stem + name)
        .shape();
  };
  CHECK(shape("stacked", ".gate_proj.lora_A.weight") == Shape{8, 3, 64});
  CHECK(shape("stacked", ".down_proj.lora_B.weight") == Shape{8, 64, 3});
  CHECK(shape("shared-outer", ".w1.lora_A.weight") == Shape{1, 3, 64});
  CHECK(shape("shared-outer", ".w2.lora_B.weight") == Shape{1, 64, 3});
  CHECK(shape("shared-outer", ".w2.lora_A.weight") == Shape{8, 3, 24});
  CHECK(shape("stacked-fused", ".gate_up_proj.lora_B.weight") == Shape{8, 48, 3});
  CHECK(shape("linear-fused", ".7.gate_up_proj.lora_A.weight") == Shape{3, 64});
  CHECK(shape("peft-params", ".base_layer.lora_A.weight") == Shape{24, 64});
  CHECK(shape("peft-params", ".lora_B.weight") == Shape{64, 24});
}

TEST_CASE("with a shared outer factor all experts have the same") {
  InitOptions o = options("qwen3_moe", {"experts"}, "stacked");
  o.random_b = o.shared_outer = true;
  const Conversion shared = make_adapter(o);
  o.shared_outer = false;
  const Conversion own = make_adapter(o);
  const std::string stem = "model.layers.1.mlp.experts.";
  const auto same = [&](const Conversion& adapter, const std::string& name) {
    const Tensor& t = adapter.tensors.at(name);
    return floats(t.select(0, 0)) == floats(t.select(0, 5));
  };
  for (const std::string& name : {a_name(stem + "gate_proj"), b_name(stem + "down_proj")}) {
    CHECK(same(shared, name));
    CHECK(!same(own, name));
  }
  CHECK(!same(shared, b_name(stem + "gate_proj")));
}

TEST_CASE("A is uniform within 1/sqrt(in), B zero or random") {
  InitOptions o = options("qwen3_moe", {"attention"}, "peft-linear");
  o.rank = 64;
  for (const bool random_b : {false, true}) {
    o.random_b = random_b;
    const Conversion adapter = make_adapter(o);
    for (const auto& entry : adapter.tensors) {
      const std::string& name = entry.first;
      const Tensor& tensor = entry.second;
      CAPTURE(name);
      const std::vector<float> values = floats(tensor);
      const bool b = name.find("lora_B") != std::string::npos;
      const double bound = 1 / std::sqrt(static_cast<double>(tensor.shape().back()));
      double mean = 0, square = 0, largest = 0;
      for (const float v : values) {
        largest = std::max(largest, std::fabs(static_cast<double>(v)));
        mean += v / static_cast<double>(values.size());
        square += static_cast<double>(v) * v / static_cast<double>(values.size());
      }
      CHECK(largest <= bound);
      if (b && !random_b) {
        CHECK(square == 0);
        continue;
      }
      CHECK(std::fabs(mean) < 0.05 * bound);
      CHECK(square == doctest::Approx(bound * bound / 3).epsilon(0.1));
    }
  }
}

TEST_CASE("the same options give the same bytes, another seed or module others") {
  InitOptions o = options("mixtral", {"attention"}, "peft-linear");
  const auto q = [&](int layer) {
    return floats(make_adapter(o).tensors.at(
        a_name("model.layers." + std::to_string(layer) + ".self_attn.q_proj")));
  };
  const std::vector<float> first = q(0);
  CHECK(q(0) == first);
  CHECK(q(1) != first);
  o.seed = 1;
  CHECK(q(0) != first);
}

TEST_CASE("gate and up share their A where they are one matrix, so the rank stays") {
  const Conversion apart = fresh("mixtral", {"experts"}, "stacked"),
                   fused = fresh("mixtral", {"experts"}, "stacked-fused");
  const std::string stem = "model.layers.0.block_sparse_moe.experts.",
                    memory = "model.layers.0.mlp.experts.";
  const std::string where = fused.tensors.count(a_name(stem + "gate_up_proj")) != 0 ? stem : memory;
  CHECK(fused.tensors.at(a_name(where + "gate_up_proj")).shape() == Shape{4, 3, 64});
  CHECK(fused.config.find("r")->as_int() == 3);
  CHECK(floats(apart.tensors.at(a_name(where + "gate_proj"))) !=
        floats(apart.tensors.at(a_name(where + "up_proj"))));
}

TEST_CASE("a family without a gate has up and down") {
  const Conversion adapter = fresh("nemotron_h", {"experts"}, "peft-linear");
  CHECK(modules(adapter).size() == 2 * 4 * 2);
  for (const std::string& module : modules(adapter))
    CHECK(module.find("gate") == std::string::npos);
}

TEST_CASE("the config says what PEFT needs, alpha as the rank where none is given") {
  InitOptions o = options("qwen3_moe", {"attention", "experts"}, "peft-params");
  const Json config = make_adapter(o).config;
  const AdapterConfig read = parse_adapter_config(config, "c");
  CHECK(read.r == 3);
  CHECK(config.find("lora_alpha")->dump(-1) == "3");
  CHECK(read.base_model == o.base);
  CHECK(read.layout == "peft-params");
  CHECK(read.b_order == BOrder::rank_major);
  CHECK(read.target_modules == Names{"k_proj", "o_proj", "q_proj", "v_proj"});
  CHECK(read.target_parameters == Names{"mlp.experts.gate_up_proj", "mlp.experts.down_proj"});
  CHECK(config.find("rank_pattern") == nullptr);
  SUBCASE("an alpha that is not a whole number stays one") {
    o.alpha = 0.5;
    CHECK(make_adapter(o).config.find("lora_alpha")->dump(-1) == "0.5");
  }
  SUBCASE("nor does a huge one become another") {
    o.alpha = 1e300;
    CHECK(make_adapter(o).config.find("lora_alpha")->as_double() == 1e300);
  }
}

TEST_CASE("of a base whose family was read in loaders alone it is said") {
  const moelora::TempFolder temp;
  InitOptions o = options("qwen3_moe", {"attention"}, "peft-linear");
  CHECK(make_adapter(o).notes.empty());
  o.base = write_loader_base(temp.path(), "kimi_k3");
  const Names notes = make_adapter(o).notes;
  REQUIRE(notes.size() == 1);
  CHECK(
      notes[0].starts_with("kimi_k3: its modules and experts are those that weight loaders read"));
}

TEST_CASE("factors are made in the type asked for") {
  InitOptions o = options("gpt_oss", {"attention", "experts"}, "stacked");
  for (const DType dtype : {DType::F32, DType::F16, DType::BF16}) {
    o.dtype = dtype;
    for (const auto& entry : make_adapter(o).tensors) CHECK(entry.second.dtype() == dtype);
  }
}

TEST_CASE("targets that cannot be are refused with those that can") {
  CHECK(fault(options("qwen3_moe", {"attention"}, "stacked")).empty());
  SUBCASE("none") {
    CHECK(fault(options("qwen3_moe", {}, "stacked")) == "--targets: is empty");
    CHECK(hint(options("qwen3_moe", {}, "stacked")) == "name attention, experts, ...");
  }
  SUBCASE("unknown") {
    CHECK(fault(options("qwen3_moe", {"attention", "q_proj"}, "stacked")) ==
          "--targets: unknown target 'q_proj'");
    CHECK(hint(options("qwen3_moe", {"q_proj"}, "stacked")) ==
          "targets: attention, mixer, mlp, shared, experts, lm_head");
  }
  SUBCASE("the router") {
    CHECK(fault(options("qwen3_moe", {"router"}, "stacked")) ==
          "--targets: router cannot be adapted: SGLang and vLLM have no LoRA for it and refuse the "
          "adapter");
    CHECK(hint(options("qwen3_moe", {"router"}, "stacked")) == "leave router out");
  }
  SUBCASE("not in this model") {
    CHECK(fault(options("mixtral", {"shared"}, "stacked")) ==
          "--targets: this base model has no shared");
    CHECK(fault(options("mixtral", {"mixer"}, "stacked")) ==
          "--targets: this base model has no mixer");
    CHECK(hint(options("mixtral", {"mixer"}, "stacked")) == "leave it out");
  }
  SUBCASE("a layout that is none") {
    CHECK(fault(options("mixtral", {"experts"}, "peft")) == "--to: unknown layout 'peft'");
  }
  SUBCASE("a rank that is none") {
    InitOptions o = options("mixtral", {"experts"}, "stacked");
    for (const int64_t rank : {int64_t{0}, int64_t{-4}}) {
      o.rank = rank;
      CHECK(fault(o).find("expected a positive integer") != std::string::npos);
    }
  }
  SUBCASE("an alpha that is none") {
    InitOptions o = options("mixtral", {"experts"}, "stacked");
    for (const double alpha : {HUGE_VAL, -HUGE_VAL, std::nan("")}) {
      o.alpha = alpha;
      CHECK(fault(o) == "--alpha: is not finite");
    }
  }
  SUBCASE("a gate_up of a model without a gate") {
    CHECK(!fault(options("nemotron_h", {"experts"}, "stacked-fused")).empty());
  }
}
