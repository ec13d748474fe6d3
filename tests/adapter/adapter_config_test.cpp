#include "lib/adapter/config/adapter_config.h"

#include <doctest/doctest.h>

#include "tests/io/error_text.h"

using namespace moelora;
using Names = std::vector<std::string>;

namespace {

AdapterConfig parsed(const std::string& text) {
  return parse_adapter_config(parse_json(text, "c.json"), "c.json");
}

// A sound config with more members: `more` starts with a comma.
AdapterConfig with(const std::string& more) {
  return parsed(R"({"r": 4, "lora_alpha": 8)" + more + "}");
}

std::string fault(const std::string& text) {
  return error_text([&] { parsed(text); });
}

std::string fault_with(const std::string& more) {
  return error_text([&] { with(more); });
}

}  // namespace

TEST_CASE("r and lora_alpha are all that an adapter config must have") {
  const AdapterConfig c = parsed(R"({"r": 4, "lora_alpha": 8.5})");
  CHECK(c.r == 4);
  CHECK(c.lora_alpha == 8.5);
  CHECK(!c.use_rslora);
  CHECK(!c.use_dora);
  CHECK(!c.lora_bias);
  CHECK(!c.fan_in_fan_out);
  CHECK(c.target_modules.empty());
  CHECK(c.target_regex.empty());
  CHECK(c.target_parameters.empty());
  CHECK(!c.b_order);
  CHECK(!c.roles);
  CHECK(c.layout.empty());
  CHECK(c.gate_up_order.empty());
}

TEST_CASE("null is the same as absent") {
  const AdapterConfig c = with(
      R"(, "target_modules": null, "target_parameters": null, "rank_pattern": null, "peft_type": null,
      "modules_to_save": null, "base_model_name_or_path": null, "use_rslora": null, "moelora": null)");
  CHECK(c.target_modules.empty());
  CHECK(c.rank_pattern.empty());
  CHECK(c.base_model.empty());
  CHECK(fault(R"({"r": null, "lora_alpha": 8})") == "c.json: \"r\" is missing");
}

TEST_CASE("what a conversion needs is typed") {
  const AdapterConfig c = with(
      R"(, "peft_type": "LORA", "use_rslora": true, "use_dora": true, "lora_bias": true,
      "fan_in_fan_out": true, "target_modules": ["q_proj", "v_proj"],
      "target_parameters": ["mlp.experts.down_proj"], "modules_to_save": ["lm_head"],
      "base_model_name_or_path": "openai/gpt-oss-20b", "peft_version": "0.21.0",
      "init_lora_weights": "pissa")");
  CHECK(c.use_rslora);
  CHECK(c.use_dora);
  CHECK(c.lora_bias);
  CHECK(c.fan_in_fan_out);
  CHECK(c.target_modules == Names{"q_proj", "v_proj"});
  CHECK(c.target_parameters == Names{"mlp.experts.down_proj"});
  CHECK(c.modules_to_save == Names{"lm_head"});
  CHECK(c.base_model == "openai/gpt-oss-20b");
  CHECK(c.peft_version == "0.21.0");
  CHECK(c.init_lora_weights == "pissa");
  CHECK(with(R"(, "init_lora_weights": true)").init_lora_weights.empty());
}

TEST_CASE("target_modules may be one regular expression") {
  const AdapterConfig c = with(R"(, "target_modules": ".*_proj")");
  CHECK(c.target_regex == ".*_proj");
  CHECK(c.target_modules.empty());
}

TEST_CASE("patterns keep the order of the file") {
  const AdapterConfig c =
      with(R"(, "rank_pattern": {"z": 1, "a": 2, "m": 3}, "alpha_pattern": {"y": 0.5, "b": 2})");
  REQUIRE(c.rank_pattern.size() == 3);
  CHECK(c.rank_pattern.keys().key(0) == "z");
  CHECK(c.rank_pattern.value(0) == 1);
  CHECK(c.rank_pattern.keys().key(2) == "m");
  CHECK(c.rank_pattern.value(2) == 3);
  CHECK(c.alpha_pattern.keys().key(0) == "y");
  CHECK(c.alpha_pattern.value(0) == 0.5);
}

TEST_CASE("markers say the order of lora_B, the roles and the layout") {
  CHECK(with(R"(, "lora_B_layout": "rank_major")").b_order == BOrder::rank_major);
  CHECK(with(R"(, "lora_B_layout": "grouped_by_expert")").b_order == BOrder::expert_major);
  const AdapterConfig c = with(
      R"(, "lora_B_layout": "rank_major", "moelora": {"layout": "peft-params", "roles": "swapped",
      "b_order": "expert-major", "gate_up_order": "interleaved"})");
  CHECK(c.layout == "peft-params");
  CHECK(c.roles == Roles::swapped);
  CHECK(c.gate_up_order == "interleaved");
  CHECK(with(R"(, "moelora": {"b_order": "expert-major"})").b_order == BOrder::expert_major);
  const AdapterConfig carried = with(
      R"(, "auto_mapping": {"lora_B_layout": "grouped_by_expert", "moelora": {"layout": "stacked",
      "roles": "swapped", "b_order": "expert-major"}})");
  CHECK(carried.layout == "stacked");
  CHECK(carried.roles == Roles::swapped);
  CHECK(carried.b_order == BOrder::expert_major);
}

TEST_CASE("the words of markers and flags are the same both ways") {
  for (const BOrder order : {BOrder::rank_major, BOrder::expert_major})
    CHECK(parse_b_order(b_order_name(order)) == order);
  for (const Roles roles : {Roles::natural, Roles::swapped})
    CHECK(parse_roles(roles_name(roles)) == roles);
  CHECK(b_order_name(BOrder::rank_major) == "rank-major");
  CHECK(roles_name(Roles::swapped) == "swapped");
  CHECK(!parse_b_order("rank_major"));
  CHECK(!parse_roles("Natural"));
}

TEST_CASE("a missing or mistyped field is named with its line, what it is and what was expected") {
  CHECK(fault_with(R"(, "target_modules": ["a"], "peft_type": "LORA")").empty());
  SUBCASE("no object") { CHECK(fault("[1]") == "c.json:1:1: is an array, expected an object"); }
  SUBCASE("no r") {
    CHECK(fault(R"({"lora_alpha": 8})") == "c.json: \"r\" is missing");
    CHECK(error_hint([] { parsed(R"({"lora_alpha": 8})"); }) == "add \"r\" as the trainer used it");
  }
  SUBCASE("no lora_alpha") { CHECK(fault(R"({"r": 8})") == "c.json: \"lora_alpha\" is missing"); }
  SUBCASE("r of another type") {
    CHECK(fault("{\n \"r\": \"4\",\n \"lora_alpha\": 8}") ==
          "c.json:2:7: \"r\" is a string, expected an integer");
    CHECK(fault("{\"r\": 4.0, \"lora_alpha\": 8}") ==
          "c.json:1:7: \"r\" is a number, expected an integer");
    CHECK(fault("{\"r\": true, \"lora_alpha\": 8}") ==
          "c.json:1:7: \"r\" is a boolean, expected an integer");
  }
  SUBCASE("r that is not a rank") {
    CHECK(fault("{\"r\": 0, \"lora_alpha\": 8}") ==
          "c.json:1:7: \"r\" is 0, expected a positive integer");
    CHECK(fault("{\"r\": -4, \"lora_alpha\": 8}") ==
          "c.json:1:7: \"r\" is -4, expected a positive integer");
  }
  SUBCASE("lora_alpha of another type") {
    CHECK(fault(R"({"r": 4, "lora_alpha": "8"})") ==
          "c.json:1:24: \"lora_alpha\" is a string, expected a number");
  }
  SUBCASE("another kind of adapter") {
    CHECK(fault(R"({"peft_type": "LOHA", "r": 4, "lora_alpha": 8})") ==
          "c.json:1:15: \"peft_type\" is \"LOHA\", expected \"LORA\"");
  }
  SUBCASE("a flag that is not a boolean") {
    CHECK(fault_with(R"(, "use_rslora": 1)") ==
          "c.json:1:41: \"use_rslora\" is an integer, expected true or false");
  }
  SUBCASE("a name that is not a string") {
    CHECK(fault_with(R"(, "peft_version": 0.21)") ==
          "c.json:1:43: \"peft_version\" is a number, expected a string");
  }
  SUBCASE("targets that are not a list of strings") {
    CHECK(fault_with(R"(, "target_parameters": "a")") ==
          "c.json:1:48: \"target_parameters\" is a string, expected an array of strings");
    CHECK(fault_with(R"(, "target_modules": ["a", 3])") ==
          "c.json:1:51: \"target_modules\" is an integer, expected a string");
  }
  SUBCASE("patterns") {
    CHECK(fault_with(R"(, "rank_pattern": ["a"])") ==
          "c.json:1:43: \"rank_pattern\" is an array, expected an object");
    CHECK(fault_with(R"(, "rank_pattern": {"a": 0})") ==
          "c.json:1:49: \"rank_pattern\" of \"a\" is 0, expected a positive integer");
    CHECK(fault_with(R"(, "alpha_pattern": {"a": "1"})") ==
          "c.json:1:50: \"alpha_pattern\" of \"a\" is a string, expected a number");
  }
  SUBCASE("markers") {
    CHECK(fault_with(R"(, "lora_B_layout": "columns")") ==
          "c.json:1:44: \"lora_B_layout\" is \"columns\", expected \"rank_major\" or "
          "\"grouped_by_expert\"");
    CHECK(fault_with(R"(, "moelora": {"roles": "other"})") ==
          "c.json:1:48: \"moelora.roles\" is \"other\", expected \"natural\" or \"swapped\"");
    CHECK(fault_with(R"(, "moelora": {"b_order": "rank_major"})") ==
          "c.json:1:50: \"moelora.b_order\" is \"rank_major\", expected \"rank-major\" or "
          "\"expert-major\"");
    CHECK(fault_with(R"(, "moelora": [])") ==
          "c.json:1:38: \"moelora\" is an array, expected an object");
  }
}

TEST_CASE("a pattern key that is not a regular expression is named with its place in the file") {
  const AdapterConfig c = with(R"(, "rank_pattern": {"k_proj": 2, "q_proj(": 4})");
  CHECK(c.scaling("model.layers.0.self_attn.k_proj").rank == 2);  // never gets to the bad one
  CHECK(error_text([&] { c.scaling("model.layers.0.self_attn.o_proj"); }) ==
        "c.json:1:68: \"rank_pattern\" of \"q_proj(\": is not a valid regular expression: missing "
        "), unterminated subpattern");
}

TEST_CASE("the scale of a path is that of the first pattern that matches, r and lora_alpha each") {
  const AdapterConfig c = with(
      R"(, "rank_pattern": {"experts.down_proj": 2, "down_proj": 16, "layers.1.mlp.experts.gate_up_proj": 3},
      "alpha_pattern": {".*\\.gate_up_proj": 24, "layers.1.mlp.experts.gate_up_proj": 5})");
  CHECK(c.scaling("model.layers.0.mlp.experts.down_proj") == Scaling{2, 8, false});
  CHECK(c.scaling("model.layers.0.mlp.down_proj") == Scaling{16, 8, false});
  CHECK(c.scaling("model.layers.0.mlp.experts.gate_up_proj") == Scaling{4, 24, false});
  CHECK(c.scaling("model.layers.1.mlp.experts.gate_up_proj") == Scaling{3, 24, false});
  CHECK(c.scaling("model.layers.0.self_attn.q_proj") == Scaling{4, 8, false});
  SUBCASE("rsLoRA is for all") {
    CHECK(with(R"(, "use_rslora": true)").scaling("a") == Scaling{4, 8, true});
  }
  SUBCASE("the same keys in the other order say something else") {
    const AdapterConfig other =
        with(R"(, "rank_pattern": {"down_proj": 16, "experts.down_proj": 2})");
    CHECK(other.scaling("model.layers.0.mlp.experts.down_proj").rank == 16);
  }
}
