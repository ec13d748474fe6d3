// The written adapter_config.json is what PEFT needs to create exactly the modules and parameters
// that the tensors are for, with their scales; peft_model.h says what PEFT does, without
// lib/adapter.

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>

#include "tests/adapter/made_adapter.h"
#include "tests/adapter/peft_model.h"
#include "tests/model/catalogue.h"

using namespace moelora;
using namespace moelora::test;

namespace {

using Names = std::vector<std::string>;
using Set = std::set<std::string>;

// Modules that the written tensors are for, expert parameters left out.
Set module_names(const TensorMap& tensors) {
  Set out;
  for (const auto& entry : tensors) {
    const TensorName name = parse_tensor_name(entry.first);
    if (name.part == TensorPart::lora_a) out.insert(name.module);
  }
  return out;
}

Set without_stems(const Set& names) {
  Set out;
  for (const std::string& name : names)
    if (!name.ends_with(".experts") && !name.ends_with(".base_layer")) out.insert(name);
  return out;
}

Set expert_parameters(const std::string& family, const std::string& stem, const Names& names) {
  Set out;
  for (const auto& entry : catalogue_entry(family).memory)
    for (const std::string& name : names)
      if (entry.first.ends_with(stem + "." + name)) out.insert(entry.first);
  return out;
}

// gate, up and down of every MoE layer in three dims, over whatever else is in `made`.
MadeAdapter& add_experts(MadeAdapter& made, const std::string& family) {
  const ModelSpec spec = catalogue_base(family).spec;
  const int64_t e = spec.experts, h = spec.expert_in, i = spec.intermediate;
  for (int layer = 0; layer < spec.layers; ++layer) {
    if (!spec.is_moe(layer)) continue;
    const std::string stem = spec.expert_stem(Form::memory, layer) + ".";
    if (spec.gated) made.pair(stem + "gate_proj", {e, 2, h}, {e, i, 2});
    made.pair(stem + "up_proj", {e, 2, h}, {e, i, 2})
        .pair(stem + "down_proj", {e, 2, i}, {e, h, 2});
  }
  return made;
}

// All Linears of these roles, at rank 2.
MadeAdapter& add_dense(MadeAdapter& made, const std::string& family,
                       const std::vector<Role>& roles) {
  for (const LinearSpec& linear : catalogue_base(family).spec.linears)
    if (std::find(roles.begin(), roles.end(), linear.role) != roles.end())
      made.pair(linear.memory, {2, linear.in}, {linear.out, 2});
  return made;
}

const Names kFamilies = {"qwen3_moe", "deepseek_v3", "qwen2_moe", "mixtral", "gpt_oss"};
const Names kPeftLayouts = {"peft-linear", "linear-fused", "peft-params"};

void check_selection(const Conversion& c, const std::string& family) {
  const std::string layout(c.to->id);
  const PeftModel model = model_for(layout, family);
  const Set written = module_names(c.tensors);
  CHECK(wrapped_modules(c.config, model) == without_stems(written));
  const bool params = layout == "peft-params";
  CHECK(wrapped_parameters(c.config, model) ==
        (params ? expert_parameters(family, "experts", {"gate_up_proj", "down_proj"}) : Set{}));
}

Names strings(const Json& config, const char* key) {
  Names out;
  const Json* value = config.find(key);
  if (value != nullptr)
    for (const Json& item : value->items()) out.push_back(item.as_string());
  return out;
}

Names keys(const Json& config) {
  Names out;
  for (const auto& member : config.members()) out.push_back(member.first);
  return out;
}

std::string config(const std::string& more) { return R"({"r": 2, "lora_alpha": 4)" + more + "}"; }

}  // namespace

TEST_CASE("PEFT wraps exactly the modules and parameters that have tensors") {
  for (const std::string& family : kFamilies)
    for (const std::string& layout : kPeftLayouts)
      for (const std::vector<Role>& roles :
           {std::vector<Role>{},
            {Role::attention},
            {Role::attention, Role::shared_expert},
            {Role::attention, Role::dense_mlp, Role::shared_expert}}) {
        CAPTURE(family);
        CAPTURE(layout);
        CAPTURE(roles.size());
        MadeAdapter made;
        add_dense(add_experts(made, family), family, roles);
        check_selection(made.convert(layout, family), family);
      }
}

TEST_CASE("attention targets are kept, whatever list the input came with") {
  for (const std::string& family : kFamilies)
    for (const std::string& layout : kPeftLayouts)
      for (const char* targets :
           {R"(["q_proj", "k_proj", "v_proj", "o_proj"])", R"(["self_attn.o_proj", "q_proj"])",
            R"(["proj", "attn.q_proj"])"}) {
        CAPTURE(family);
        CAPTURE(layout);
        CAPTURE(targets);
        MadeAdapter made(config(std::string(R"(, "target_modules": )") + targets));
        add_dense(add_experts(made, family), family, {Role::attention});
        check_selection(made.convert(layout, family), family);
      }
}

TEST_CASE("one layer's attention is not every layer's") {
  MadeAdapter made(config(
      R"(, "target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": "layers")"));
  add_experts(made, "mixtral").pair("model.layers.1.self_attn.q_proj", {2, 64}, {64, 2});
  for (const std::string& layout : kPeftLayouts) {
    CAPTURE(layout);
    const Conversion c = made.convert(layout, "mixtral");
    check_selection(c, "mixtral");
    CHECK(c.config.find("layers_to_transform")->is(Json::Kind::null));
    CHECK(c.config.find("layers_pattern")->is(Json::Kind::null));
  }
}

TEST_CASE("experts of one layer are targeted in that layer only") {
  MadeAdapter made;
  made.pair("model.layers.1.mlp.experts.gate_proj", {4, 2, 64}, {4, 48, 2})
      .pair("model.layers.1.mlp.experts.up_proj", {4, 2, 64}, {4, 48, 2});
  const Conversion params = made.convert("peft-params", "mixtral");
  CHECK(wrapped_parameters(params.config, model_for("peft-params", "mixtral")) ==
        Set{"model.layers.1.mlp.experts.gate_up_proj"});
  for (const char* layout : {"peft-linear", "linear-fused"}) {
    const Conversion c = made.convert(layout, "mixtral");
    CHECK(wrapped_modules(c.config, model_for(layout, "mixtral")) == module_names(c.tensors));
  }
}

TEST_CASE(
    "a dense layer and shared experts with the experts' names are excluded, those with LoRA are "
    "not") {
  MadeAdapter made;
  const Json sparse = add_dense(add_experts(made, "deepseek_v3"), "deepseek_v3", {Role::attention})
                          .convert("peft-linear", "deepseek_v3")
                          .config;
  CHECK(strings(sparse, "exclude_modules") ==
        Names{"model.layers.0.mlp.gate_proj", "model.layers.0.mlp.up_proj",
              "model.layers.0.mlp.down_proj", "model.layers.1.mlp.shared_experts.gate_proj",
              "model.layers.1.mlp.shared_experts.up_proj",
              "model.layers.1.mlp.shared_experts.down_proj"});
  SUBCASE("after what was excluded already") {
    MadeAdapter again(config(R"(, "exclude_modules": ["lm_head"])"));
    CHECK(strings(add_experts(again, "deepseek_v3").convert("peft-linear", "deepseek_v3").config,
                  "exclude_modules")[0] == "lm_head");
  }
  SUBCASE("joined to a regular expression") {
    MadeAdapter again(config(R"(, "exclude_modules": ".*lm_head")"));
    const Conversion c = add_experts(again, "deepseek_v3").convert("peft-linear", "deepseek_v3");
    CHECK(wrapped_modules(c.config, model_for("peft-linear", "deepseek_v3")) ==
          module_names(c.tensors));
  }
  SUBCASE("nothing to exclude in PEFT's parameters") {
    CHECK(made.convert("peft-params", "deepseek_v3").config.find("exclude_modules") == nullptr);
  }
}

TEST_CASE("a bare parameter stays one: gpt-oss' router") {
  MadeAdapter made(
      config(R"(, "target_modules": null, "target_parameters": ["mlp.router.weight"])"));
  add_experts(made, "gpt_oss")
      .pair("model.layers.0.mlp.router", {2, 64}, {4, 2})
      .pair("model.layers.1.mlp.router", {2, 64}, {4, 2});
  const Json params = made.convert("peft-params", "gpt_oss").config;
  CHECK(wrapped_parameters(params, model_for("peft-params", "gpt_oss")) ==
        Set{"model.layers.0.mlp.router.weight", "model.layers.1.mlp.router.weight",
            "model.layers.0.mlp.experts.gate_up_proj", "model.layers.1.mlp.experts.gate_up_proj",
            "model.layers.0.mlp.experts.down_proj", "model.layers.1.mlp.experts.down_proj"});
  CHECK(params.find("target_modules")->is(Json::Kind::null));
  CHECK(strings(made.convert("stacked", "gpt_oss").config, "target_parameters") ==
        Names{"mlp.router.weight"});
}

TEST_CASE("a router is a Linear in transformers 4 and a parameter in transformers 5") {
  MadeAdapter made(config(R"(, "target_modules": ["gate"])"));
  add_dense(add_experts(made, "qwen3_moe"), "qwen3_moe", {Role::router});
  const Set routers = {"model.layers.1.mlp.gate", "model.layers.2.mlp.gate"};
  const Conversion linear = made.convert("peft-linear", "qwen3_moe");
  CHECK(wrapped_modules(linear.config, model_for("peft-linear", "qwen3_moe")) ==
        module_names(linear.tensors));
  const Json params = made.convert("peft-params", "qwen3_moe").config;
  CHECK(wrapped_modules(params, model_for("peft-params", "qwen3_moe")).empty());
  for (const std::string& router : routers)
    CHECK(wrapped_parameters(params, model_for("peft-params", "qwen3_moe"))
              .count(router + ".weight") == 1);
}

TEST_CASE("each target has its own rank and scale by PEFT's first-match rule") {
  MadeAdapter made(
      R"({"r": 2, "lora_alpha": 4, "use_rslora": true, "rank_pattern": {"o_proj": 3, "down_proj": 2},
      "alpha_pattern": {"o_proj": 7, "layers.1.self_attn.q_proj": 5, "experts.down_proj": 24}})");
  made.pair("model.layers.0.self_attn.q_proj", {2, 64}, {64, 2})
      .pair("model.layers.1.self_attn.q_proj", {2, 64}, {64, 2})
      .pair("model.layers.0.self_attn.o_proj", {3, 64}, {64, 3});
  add_experts(made, "mixtral");
  for (const std::string& layout : kPeftLayouts) {
    CAPTURE(layout);
    const Conversion c = made.convert(layout, "mixtral");
    const auto is = [&](const std::string& path, int64_t rank, double alpha) {
      CAPTURE(path);
      const double scale = alpha / std::sqrt(static_cast<double>(rank));
      CHECK(rank_and_scale(c.config, path).rank == rank);
      CHECK(rank_and_scale(c.config, path).scale == scale);
    };
    is("model.layers.0.self_attn.q_proj", 2, 4);
    is("model.layers.1.self_attn.q_proj", 2, 5);
    is("model.layers.0.self_attn.o_proj", 3, 7);
    const bool linear = layout == "peft-linear", params = layout == "peft-params";
    const std::string stem =
        params ? "model.layers.1.mlp.experts." : "model.layers.1.block_sparse_moe.experts.3.";
    is(stem + (linear ? "w2" : "down_proj"), 2, 24);
    const RankAndScale up = rank_and_scale(c.config, stem + (linear ? "w3" : "gate_up_proj"));
    CHECK(up.rank == (linear ? 2 : 4));  // gate and up have A of their own
    CHECK(up.scale == 4 / std::sqrt(2.0));
  }
}

TEST_CASE("without experts the config's patterns are left as they are") {
  MadeAdapter made(config(R"(, "target_modules": ["q_proj"], "rank_pattern": {".*q_proj": 2})"));
  made.pair("model.layers.0.self_attn.q_proj", {2, 64}, {64, 2});
  const Conversion c = made.convert("peft-linear", "mixtral");
  CHECK(
      c.config ==
      parse_json(
          config(
              R"(, "target_modules": ["q_proj"], "rank_pattern": {".*q_proj": 2}, "peft_type": "LORA")"),
          ""));
}

TEST_CASE("keys we do not know keep their place and their value") {
  MadeAdapter made(
      R"({"zeta": {"b": 1, "a": [1, 2.50, null]}, "r": 2, "my_key": "x", "lora_alpha": 4, "peft_type": "LORA",
      "target_modules": ["w1"], "lora_dropout": 0.05, "eva_config": null, "alpha": 1e-05})");
  const Json out = add_experts(made, "mixtral").convert("peft-linear", "mixtral").config;
  CHECK(keys(out) == Names{"zeta", "r", "my_key", "lora_alpha", "peft_type", "target_modules",
                           "lora_dropout", "eva_config", "alpha", "auto_mapping"});
  CHECK(out.find("zeta")->dump(-1) == R"({"b": 1, "a": [1, 2.50, null]})");
  CHECK(out.find("alpha")->dump(-1) == "1e-05");
  CHECK(out.find("lora_dropout")->dump(-1) == "0.05");
}

// PEFT warns of keys at the top level that it does not know, and carries auto_mapping along.
Json mapping_of(const Json& config) {
  CHECK(config.find("moelora") == nullptr);
  CHECK(config.find("lora_B_layout") == nullptr);
  REQUIRE(config.find("auto_mapping") != nullptr);
  return *config.find("auto_mapping");
}

TEST_CASE("the written config says the layout, and for stacked pairs the order and the roles") {
  MadeAdapter made;
  add_experts(made, "gpt_oss");
  const auto marker = [&](const std::string& to, const LayoutWriteOptions& options) {
    Json out = *mapping_of(made.convert(to, "gpt_oss", options).config).find("moelora");
    CHECK(!out.find("version")->as_string().empty());
    out.erase("version");
    return out.dump(-1);
  };
  const auto order = [&](const std::string& to, const LayoutWriteOptions& options) {
    const Json mapping = mapping_of(made.convert(to, "gpt_oss", options).config);
    const Json* layout = mapping.find("lora_B_layout");
    return layout == nullptr ? "" : layout->as_string();
  };
  const LayoutWriteOptions plain, other{BOrder::expert_major, Roles::swapped};
  CHECK(marker("peft-linear", plain) == R"({"layout": "peft-linear"})");
  CHECK(marker("stacked-fused", plain) ==
        R"({"layout": "stacked-fused", "gate_up_order": "halves"})");
  CHECK(
      marker("peft-params", plain) ==
      R"({"layout": "peft-params", "roles": "natural", "b_order": "rank-major", "gate_up_order": "interleaved"})");
  CHECK(
      marker("peft-params", other) ==
      R"({"layout": "peft-params", "roles": "swapped", "b_order": "expert-major", "gate_up_order": "interleaved"})");
  CHECK(order("peft-params", plain) == "rank_major");
  CHECK(order("peft-params", other) == "grouped_by_expert");
  CHECK(order("stacked", plain).empty());
}

TEST_CASE("a marker of the input's layout does not outlive it") {
  MadeAdapter made(config(
      R"(, "lora_B_layout": "grouped_by_expert", "moelora": {"layout": "peft-params", "roles": "natural"})"));
  made.pair("model.layers.0.mlp.experts.base_layer", {8, 64}, {96, 8})
      .pair("model.layers.0.mlp.experts", {8, 48}, {64, 8});
  const Json out = mapping_of(made.convert("stacked", "mixtral").config);
  CHECK(out.find("lora_B_layout") == nullptr);
  CHECK(out.find("moelora")->find("roles") == nullptr);
  CHECK(out.find("moelora")->find("layout")->as_string() == "stacked");
}

TEST_CASE("3-D layouts list the leaves that SGLang normalizes") {
  MadeAdapter made;
  add_experts(made, "mixtral");
  CHECK(strings(made.convert("stacked", "mixtral").config, "target_modules") ==
        Names{"gate_proj", "up_proj", "down_proj"});
  CHECK(strings(made.convert("stacked-fused", "mixtral").config, "target_modules") ==
        Names{"gate_up_proj", "down_proj"});
}

// PEFT writes null where parameters alone are targeted; lora-validate asks for the key.
TEST_CASE("an adapter of parameters alone says that no module is targeted") {
  MadeAdapter made;
  const Json config = add_experts(made, "qwen3_moe").convert("peft-params", "qwen3_moe").config;
  REQUIRE(config.find("target_modules") != nullptr);
  CHECK(config.find("target_modules")->is(Json::Kind::null));
}
