// Modules that one side has whole and the other in parts: --verify finds a sound conversion sound
// and a mixed-up one not, and what an adapter means has one name whatever it was trained as.

#include "lib/adapter/joined_modules.h"

#include <doctest/doctest.h>

#include <algorithm>

#include "lib/base/error.h"
#include "lib/compare/meant_deltas.h"
#include "lib/compare/packed_check.h"
#include "lib/compare/verify_conversion.h"
#include "tests/adapter/goldens.h"
#include "tests/adapter/made_adapter.h"

using namespace moelora;
using namespace moelora::test;

namespace {

const std::string kAttention = "model.layers.0.self_attn.";
const std::string kWhole = "model.layers.0.attention.query_key_value";
const std::string kExpert = "model.layers.1.mlp.experts.0.down_proj";

const ModelSpec& sarvam() {
  static const BaseModel base = catalogue_base("sarvam_moe");
  return base.spec;
}

struct Written {
  TempFolder temp;
  Conversion conversion;

  Written(std::initializer_list<std::string> modules, const std::string& to) {
    MadeAdapter made;
    made.pair(kExpert, {2, 22}, {60, 2});
    for (const std::string& module : modules) {
      const LinearSpec& linear = *sarvam().find_linear(module);
      made.pair(module, {2, linear.in}, {linear.out, 2});
    }
    made.write(temp.path + "/in");
    PlanOptions convert;
    convert.to = to;
    convert.load.base = MOELORA_TEST_DATA "/families/sarvam_moe";
    conversion = plan_conversion(temp.path + "/in", convert);
  }

  WrittenConversion write() {
    WriteFolderOptions options;
    options.output.durable = false;
    options.verify = packed_verifier(temp.path + "/in", 1);
    return write_conversion(conversion, temp.path + "/out", options);
  }
};

Tensor swapped_halves(const Tensor& t) {
  const int64_t half = t.dim(0) / 2;
  return Tensor::concat(0, std::vector{t.slice(0, half, t.dim(0) - half), t.slice(0, 0, half)});
}

packed::Report compared(const MadeAdapter& packed, const MadeAdapter& source) {
  const Json ours = parse_json(packed.config(), "packed"),
             theirs = parse_json(source.config(), "source");
  packed::CheckOptions options;
  options.threads = 1;
  return packed::check_packed({packed.tensors(), ours, "packed"},
                              {source.tensors(), theirs, "source"}, options);
}

}  // namespace

TEST_CASE("modules that are cut or joined are verified element by element or by their product") {
  CHECK(Written({kWhole}, "peft-params").write().same_product == 0);
  const std::string q = kAttention + "q_proj", k = kAttention + "k_proj", v = kAttention + "v_proj";
  CHECK(Written({q, k, v}, "peft-linear").write().same_product > 0);
  CHECK_NOTHROW(Written({q, v}, "peft-linear").write());
  for (const std::string& only : {q, k, v}) CHECK_NOTHROW(Written({only}, "peft-linear").write());
}

TEST_CASE("rows of another part are found") {
  Written cut({kWhole}, "peft-params");
  Tensor& k = cut.conversion.tensors.at(b_name(kAttention + "k_proj"));
  k = cut.conversion.tensors.at(b_name(kAttention + "v_proj"));
  CHECK_THROWS_AS(cut.write(), Error);

  Written joined({kAttention + "q_proj", kAttention + "k_proj", kAttention + "v_proj"},
                 "peft-linear");
  Tensor& whole = joined.conversion.tensors.at(b_name(kWhole));
  whole = swapped_halves(whole);
  CHECK_THROWS_AS(joined.write(), Error);
}

TEST_CASE("what an adapter means has the hub's modules, whether it was trained whole or in parts") {
  const BaseModel glm = catalogue_base("glm4");
  const std::string mlp = "model.layers.0.mlp.";
  const LinearSpec& whole = *glm.spec.find_linear(mlp + "gate_up_proj");
  MadeAdapter parts;
  for (const char* part : {"gate_proj", "up_proj"})
    parts.pair(mlp + part, {2, whole.in}, {whole.out / 2, 2});
  const Deltas meant = meant_deltas(parts.read("glm4").adapter, glm.spec);
  REQUIRE(meant.size() == 1);
  CHECK(meant.begin()->first.module == mlp + "gate_up_proj");
  CHECK(meant.begin()->second.b.shape() == Shape{whole.out, 4});
  CHECK(meant.begin()->second.scale == 2);

  MadeAdapter memory;
  for (const char* part : {"q_proj", "v_proj"}) {
    const LinearSpec& linear = *sarvam().find_linear(kAttention + part);
    memory.pair(kAttention + part, {2, linear.in}, {linear.out, 2});
  }
  CHECK(meant_deltas(memory.read("sarvam_moe").adapter, sarvam()).contains({kWhole, -1, -1}));

  const BaseModel minimax = catalogue_base("minimax_m3_vl");
  const std::string fused = "model.language_model.layers.0.mlp.gate_up_proj";
  const LinearSpec& joint = *minimax.spec.find_linear(fused);
  MadeAdapter joined;
  joined.pair(fused, {2, joint.in}, {joint.out, 2});
  const Deltas apart = meant_deltas(joined.read("minimax_m3_vl").adapter, minimax.spec);
  REQUIRE(apart.size() == 2);
  CHECK(apart.begin()->first.module.ends_with("mlp.gate_proj"));
  CHECK(apart.rbegin()->first.module.ends_with("mlp.up_proj"));
  CHECK(apart.begin()->second.scale == 2);
  const auto own = apart.rbegin()->second.b.read();
  const auto rows = joined.tensors().at(b_name(fused)).slice(0, joint.out / 2, joint.out / 2);
  CHECK(own == rows.read());
}

TEST_CASE("a whole is not taken apart where its adapter has one of its parts beside it") {
  const std::string attention = "model.layers.0.self_attn.";
  const std::vector<float> rows_of_q(8 * 2, 0), rows_of_kv(8 * 2, 1);
  MadeAdapter source, cut, both;
  source.pair(attention + "qkv_proj", {2, 6}, {16, 2});
  source.set(b_name(attention + "qkv_proj"),
             Tensor::concat(0, std::vector{Tensor::of_f32({8, 2}, rows_of_q),
                                           Tensor::of_f32({8, 2}, rows_of_kv)}));
  for (const char* part : {"k_proj", "v_proj"}) {
    cut.pair(attention + part, {2, 6}, {4, 2});
    cut.set(a_name(attention + part), source.tensors().at(a_name(attention + "qkv_proj")));
    cut.set(b_name(attention + part), Tensor::of_f32({4, 2}, std::vector<float>(8, 1)));
  }
  CHECK(compared(cut, source).sound());
  source.pair(attention + "q_proj", {2, 6}, {8, 2});
  CHECK_FALSE(compared(cut, source).sound());
}

TEST_CASE("rows in turn are those of gate and up, and no others") {
  const std::string mlp = "model.layers.0.mlp.", fused = mlp + "w13_dn";
  MadeAdapter whole, parts, halves;
  whole.pair(fused, {2, 6}, {8, 2});
  const Tensor& b = whole.tensors().at(b_name(fused));
  for (int64_t i = 0; i < 2; ++i) {
    const std::string name = mlp + (i == 0 ? "gate_proj" : "up_proj");
    for (MadeAdapter* made : {&parts, &halves})
      made->pair(name, {2, 6}, {4, 2}).set(a_name(name), whole.tensors().at(a_name(fused)));
    parts.set(b_name(name), b.reshape({4, 2, 2}).select(1, i));
    halves.set(b_name(name), b.slice(0, 4 * i, 4));
  }
  CHECK(compared(parts, whole).sound());
  CHECK(compared(whole, parts).sound());
  CHECK_FALSE(compared(halves, whole).sound());
  CHECK_FALSE(compared(whole, halves).sound());
}

// Whose last row would lie behind the whole's.
TEST_CASE("a whole of rows in turn is not taken apart into parts of two sizes") {
  const std::string mlp = "model.layers.0.mlp.";
  MadeAdapter whole, parts;
  whole.pair(mlp + "w13_dn", {2, 6}, {16, 2});
  parts.pair(mlp + "gate_proj", {2, 6}, {2, 2});
  parts.pair(mlp + "up_proj", {2, 6}, {14, 2});
  const packed::Report report = compared(parts, whole);
  CHECK(std::any_of(report.faults.begin(), report.faults.end(), [&](const packed::Fault& fault) {
    return std::count(fault.modules.begin(), fault.modules.end(), mlp + "w13_dn") != 0;
  }));
}
