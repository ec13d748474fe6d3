// What the packed check reads anew of an adapter's names and config: names, pattern keys, scales.

#include <doctest/doctest.h>

#include <optional>
#include <random>

#include "lib/base/error.h"
#include "lib/compare/bits/names.h"
#include "lib/compare/bits/scales.h"

using namespace moelora;
using namespace moelora::packed;

TEST_CASE("factor names of every spelling are taken apart") {
  struct Row {
    const char *name, *module, *stem, *rest;
    Side side;
    int layer;
  };
  const std::vector<Row> rows = {
      {"base_model.model.model.layers.3.mlp.experts.7.gate_proj.lora_A.weight",
       "model.layers.3.mlp.experts.7.gate_proj", "model.layers.3.mlp.experts", "7.gate_proj",
       Side::A, 3},
      {"base_model.model.base_model.model.model.layers.12.mlp.experts.lora_B",
       "model.layers.12.mlp.experts", "model.layers.12.mlp.experts", "", Side::B, 12},
      {"model.layers.0.mlp.experts.base_layer.lora_A.default.weight",
       "model.layers.0.mlp.experts.base_layer", "model.layers.0.mlp.experts", "base_layer", Side::A,
       0},
      {"layers.5.block_sparse_moe.experts.w2.lora_B.weight", "layers.5.block_sparse_moe.experts.w2",
       "layers.5.block_sparse_moe.experts", "w2", Side::B, 5},
      {"transformer.blocks.4.ffn.experts.mlp.lora_A.weight", "transformer.blocks.4.ffn.experts.mlp",
       "transformer.blocks.4.ffn.experts", "mlp", Side::A, 4},
      {"visual.blocks.4.ffn.experts.0.w1.lora_A.weight", "visual.blocks.4.ffn.experts.0.w1", "", "",
       Side::A, -1},
      {"model.layers.1.self_attention.experts.router.layer.lora_A.weight",
       "model.layers.1.self_attention.experts.router.layer", "", "", Side::A, -1},
      {"model.layers.1.self_attn.q_proj.lora_A.weight", "model.layers.1.self_attn.q_proj", "", "",
       Side::A, -1},
      {"model.layers.1.mlp.shared_experts.up_proj.lora_A.weight",
       "model.layers.1.mlp.shared_experts.up_proj", "", "", Side::A, -1},
      {"model.encoder.layers.1.ffn.experts.expert_3.fc1.lora_A.weight",
       "model.encoder.layers.1.ffn.experts.expert_3.fc1", "", "", Side::A, -1},
      {"model.layers.01.mlp.experts.w1.lora_A.weight", "model.layers.01.mlp.experts.w1", "", "",
       Side::A, -1},
  };
  for (const Row& row : rows) {
    CAPTURE(row.name);
    const auto name = parse_factor_name(row.name);
    REQUIRE(name);
    CHECK(name->module == row.module);
    CHECK(name->side == row.side);
    CHECK(name->expert == (row.layer >= 0));
    CHECK(name->layer == row.layer);
    if (row.layer >= 0) CHECK(name->stem == row.stem);
    if (row.layer >= 0) CHECK(name->rest == row.rest);
  }
  for (const char* other :
       {"lm_head.weight", "a.lora_B.bias", "a.lora_magnitude_vector", "lora_A.weight", ""})
    CHECK_FALSE(parse_factor_name(other));
}

TEST_CASE("what stands below experts says layout, projection and expert") {
  using Form = ExpertRest::Form;
  struct Row {
    const char* rest;
    Form form;
    Projection projection;
    int64_t expert;
    int nesting;
  };
  for (const Row& row : std::vector<Row>{
           {"7.gate_proj", Form::numbered, Projection::gate, 7, 0},
           {"11.w2", Form::numbered, Projection::down, 11, 0},
           {"0.gate_up_proj", Form::numbered, Projection::gate_up, 0, 0},
           {"gate_up_projs.30", Form::plural, Projection::gate_up, 30, 0},
           {"w3", Form::all, Projection::up, -1, 0},
           {"down_proj", Form::all, Projection::down, -1, 0},
           {"", Form::parameter, Projection::down, -1, 0},
           {"base_layer", Form::parameter, Projection::down, -1, 1},
           {"base_layer.base_layer", Form::parameter, Projection::down, -1, 2},
           {"mlp", Form::parameter, Projection::down, -1, 0},
           {"mlp.base_layer", Form::parameter, Projection::down, -1, 1},
       }) {
    CAPTURE(row.rest);
    const auto rest = parse_expert_rest(row.rest);
    REQUIRE(rest);
    CHECK(rest->form == row.form);
    if (row.form != Form::parameter) CHECK(rest->projection == row.projection);
    CHECK(rest->expert == row.expert);
    CHECK(rest->nesting == row.nesting);
  }
  for (const char* other : {"7", "7.q_proj", "shared.gate_proj", "up_projs.1", "-1.w1", "w4",
                            "base_layer.", "7.gate_proj.x", "01.w1", "mlp.", "mlp.w1"})
    CHECK_FALSE(parse_expert_rest(other));
}

TEST_CASE("the first pattern in the file's order gives rank and alpha") {
  const Json config = parse_json(R"({"r": 8, "lora_alpha": 16, "rank_pattern":
      {"experts\\.1\\.w1": 4, "w1": 2, "gate_up_proj": 32}, "alpha_pattern": {"w1": 6.5}})",
                                 "c");
  const Scales scales(config, "c");
  CHECK(scales.of({"model.layers.0.mlp.experts.1.w1"}) == Scale{6.5, 4, false});
  CHECK(scales.of({"model.layers.0.mlp.experts.2.w1"}) == Scale{6.5, 2, false});
  CHECK(scales.of({"model.layers.0.mlp.experts.2.w2"}) == Scale{16, 8, false});
  CHECK(scales.of({"experts.w9", "experts.gate_up_proj"}) == Scale{16, 32, false});
  const Json plain = parse_json(R"({"r": 8, "lora_alpha": 16,
      "rank_pattern": {"experts.w1": 4, "mlp.experts.w1": 2, "w2": 1, "experts.w2": 3}})",
                                "c");
  CHECK(Scales(plain, "c").of({"model.mlp.experts.w1"}).rank == 4);
  CHECK(Scales(plain, "c").of({"model.mlp.experts.w2"}).rank == 1);
  CHECK(Scale{12, 9, true}.value() == 4);
  CHECK_THROWS_AS(Scales(parse_json(R"({"r": 0, "lora_alpha": 1})", "c"), "c"), Error);
  CHECK_THROWS_AS(Scales(parse_json(R"({"lora_alpha": 1})", "c"), "c"), Error);
}
