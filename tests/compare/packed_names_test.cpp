// What the packed check reads anew of an adapter's names and config: names, pattern keys, scales.

#include <doctest/doctest.h>

#include <optional>
#include <random>

#include "lib/adapter/path_regex.h"
#include "lib/base/error.h"
#include "lib/compare/bits/names.h"
#include "lib/compare/bits/pattern_key.h"
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
      {"model.layers.1.self_attn.q_proj.lora_A.weight", "model.layers.1.self_attn.q_proj", "", "",
       Side::A, -1},
      {"model.layers.1.mlp.shared_experts.up_proj.lora_A.weight",
       "model.layers.1.mlp.shared_experts.up_proj", "", "", Side::A, -1},
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
                            "base_layer.", "7.gate_proj.x", "01.w1"})
    CHECK_FALSE(parse_expert_rest(other));
}

TEST_CASE("pattern keys name what PEFT's re.match names") {
  const auto names = [](const char* key, const char* path) {
    return PatternKey(key, "config").names(path);
  };
  CHECK(names("q_proj", "model.layers.0.self_attn.q_proj"));
  CHECK_FALSE(names("q_proj", "model.layers.0.self_attn.xq_proj"));
  CHECK(names("(q|v)_proj", "model.layers.0.self_attn.v_proj"));
  CHECK(names(R"(layers\.\d+\.mlp\.experts\.gate_up_proj)",
              "model.layers.31.mlp.experts.gate_up_proj"));
  CHECK_FALSE(names(R"(layers\.[0-4]\.mlp)", "model.layers.5.mlp"));
  CHECK(names(R"(.*\.gate_up_proj)", "model.layers.1.mlp.experts.gate_up_proj"));
  CHECK(names("^model.layers.1.mlp$", "model.layers.1.mlp"));
  CHECK(names(R"(layers\.\d{2}\.mlp)", "model.layers.17.mlp"));
  CHECK_FALSE(names(R"(layers\.\d{2}\.mlp)", "model.layers.7.mlp"));
  CHECK(names(R"(a(b|c)*?d{1,3})", "x.abcbd"));
  CHECK(names("experts.[^.]+.w1", "model.experts.11.w1"));
  CHECK_FALSE(names("experts.[^.]+.w1", "model.experts.11.2.w1"));
  CHECK(names("^layers.1.mlp", "layers.1.mlp"));
  CHECK_FALSE(names("^layers.1.mlp", "model.layers.1.mlp"));
  CHECK(names("^mlp|w1", "model.w1"));
  CHECK_FALSE(names("^mlp|w1", "model.mlp"));
  CHECK(names("mlp$|w1", "model.mlp"));
  CHECK_FALSE(names("m$lp", "m$lp"));
  CHECK(names("w{,2}1{x}", "w1{x}"));
  CHECK(names("((a*)*)*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaab"));
  CHECK_FALSE(names("((a*)*)*b", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"));
  std::string nothing_often = "()";
  for (int depth = 0; depth < 30; ++depth) nothing_often = "(" + nothing_often + "){64}";
  const std::vector<std::string> bad_keys = {"(",
                                             "a)",
                                             "[a",
                                             "(?=a)",
                                             R"(\b)",
                                             "a{2,1}",
                                             "{2}",
                                             "a**",
                                             "^*",
                                             "*a",
                                             "x{64}{64}",
                                             "x{65}",
                                             "(((x{64}){64}){64})",
                                             nothing_often};
  for (const std::string& bad : bad_keys) CHECK_THROWS_AS(PatternKey(bad, "config"), Error);
}

TEST_CASE("pattern keys made at random name what lib/adapter's own expressions name") {
  const std::vector<std::string> kPieces = {"a",    "b", "\\.", ".",    "*",    "+",   "?",
                                            "(",    ")", "|",   "[ab]", "[^a]", "\\d", "{2}",
                                            "{1,}", "^", "$",   "1",    "(?:",  "a-b", "\\w"};
  std::mt19937_64 rng(7);
  const auto pick = [&](size_t n) { return static_cast<size_t>(rng() % n); };
  int compared = 0, named = 0;
  for (int round = 0; round < 20000; ++round) {
    std::string text, path;
    for (size_t i = pick(8) + 1; i-- > 0;) text += kPieces[pick(kPieces.size())];
    std::optional<PatternKey> key;
    std::optional<PathRegex> expression;
    try {
      key.emplace(text, "config");
      expression.emplace("(.*\\.)?(" + text + ")");
    } catch (const Error&) {
      continue;
    }
    for (int tries = 0; tries < 8; ++tries) {
      path.clear();
      for (size_t i = pick(7); i-- > 0;) path += "ab.1"[pick(4)];
      INFO(text, " on ", path);
      REQUIRE(key->names(path) == expression->matches(path));
      ++compared;
      named += key->names(path) ? 1 : 0;
    }
  }
  CHECK(compared > 20000);
  CHECK(named > 1000);
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
