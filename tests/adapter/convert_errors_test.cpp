// What a layout cannot say is refused with where, what and how to fix it; what looks like it but
// can be said exactly is not.

#include <doctest/doctest.h>

#include "lib/base/cast.h"
#include "tests/adapter/made_adapter.h"
#include "tests/io/error_text.h"

using namespace moelora;
using namespace moelora::test;

namespace {

using Values = std::vector<float>;

const std::string kLayer = "model.layers.1.mlp.experts.", kFirst = "model.layers.0.mlp.experts.";

std::string refused(const MadeAdapter& made, const std::string& to,
                    const std::string& family = "") {
  return error_text([&] { made.convert(to, family); });
}

std::string refused_hint(const MadeAdapter& made, const std::string& to,
                         const std::string& family = "") {
  return error_hint([&] { made.convert(to, family); });
}

MadeAdapter with(const std::string& more) {
  return MadeAdapter(R"({"r": 2, "lora_alpha": 4)" + more + "}");
}

// qwen3_moe, experts 0 and 3 of layer 1.
MadeAdapter numbered() {
  MadeAdapter made;
  for (const char* e : {"0.", "3."})
    made.pair(kLayer + e + "gate_proj", {2, 64}, {24, 2})
        .pair(kLayer + e + "up_proj", {2, 64}, {24, 2})
        .pair(kLayer + e + "down_proj", {2, 24}, {64, 2});
  return made;
}

const Tensor& tensor(const Conversion& c, const std::string& name) { return c.tensors.at(name); }

}  // namespace

TEST_CASE("Grok-1's words are refused of a model whose experts have others") {
  MadeAdapter made;
  made.pair(kLayer + "0.linear_1", {2, 24}, {64, 2});
  CHECK(refused(made, "stacked", "qwen3_moe")
            .find("\"linear_1\" is down_proj in Grok-1, which the "
                  "experts of this base model call \"down_proj\"") != std::string::npos);
}

TEST_CASE("gate without up fits fused layouts: the other half is zero") {
  MadeAdapter made;
  made.pair(kLayer + "gate_proj", {8, 2, 64}, {8, 24, 2});
  for (const char* to : {"stacked-fused", "linear-fused", "peft-params"}) {
    CAPTURE(to);
    const Conversion c = made.convert(to, "qwen3_moe");
    CHECK(c.tensors.size() == (std::string(to) == "linear-fused" ? 16 : 2));
    CHECK(c.config.find("r") != nullptr);
    CHECK(c.config.find("r")->as_int() == 2);
  }
  const Values b =
      floats(tensor(made.convert("stacked-fused", "qwen3_moe"), b_name(kLayer + "gate_up_proj")));
  const Values gate = floats(made.tensors().at(b_name(kLayer + "gate_proj")));
  CHECK(std::equal(gate.begin(), gate.begin() + 48, b.begin()));
  for (size_t i = 48; i < 96; ++i) CHECK(b[i] == 0);
}

TEST_CASE("gate and up of different scales fit layouts that hold them apart") {
  MadeAdapter made = with(R"(, "alpha_pattern": {"experts.up_proj": 2})");
  made.pair(kLayer + "gate_proj", {8, 2, 64}, {8, 24, 2})
      .pair(kLayer + "up_proj", {8, 2, 64}, {8, 24, 2});
  for (const char* to : {"stacked-fused", "linear-fused", "peft-params"}) {
    CAPTURE(to);
    CHECK(refused(made, to, "qwen3_moe") ==
          "layer 1, expert 0: gate has the scale 2 and up 1: one gate_up pair has one scale");
    CHECK(refused_hint(made, to, "qwen3_moe") ==
          "convert to a layout with separate gate and up (peft-linear, stacked)");
  }
  for (const char* to : {"peft-linear", "stacked"}) CHECK(refused(made, to, "qwen3_moe").empty());
}

TEST_CASE("experts that differ fit layouts that hold them apart") {
  const MadeAdapter made = numbered();
  SUBCASE("outer factors of their own") {
    MadeAdapter all;
    all.pair(kLayer + "down_proj", {8, 2, 24}, {8, 64, 2});
    CHECK(refused(all, "shared-outer", "qwen3_moe") ==
          "layer 1 down_proj lora_B: differs between experts 0 and 1; shared-outer holds one for "
          "all");
    CHECK(refused_hint(all, "shared-outer", "qwen3_moe") ==
          "use --to stacked, which holds one per expert");
    MadeAdapter gates;
    gates.pair(kLayer + "gate_proj", {8, 2, 64}, {8, 24, 2});
    CHECK(refused(gates, "shared-outer", "qwen3_moe") ==
          "layer 1 gate_proj lora_A: differs between experts 0 and 1; shared-outer holds one for "
          "all");
  }
  SUBCASE("outer factors equal byte by byte are one") {
    MadeAdapter equal;
    for (int e = 0; e < 8; ++e)
      equal.pair(kLayer + std::to_string(e) + ".down_proj", {2, 24}, {64, 2});
    for (int e = 1; e < 8; ++e)
      equal.copy(b_name(kLayer + std::to_string(e) + ".down_proj"), b_name(kLayer + "0.down_proj"));
    const Conversion c = equal.convert("shared-outer", "qwen3_moe");
    CHECK(tensor(c, b_name(kLayer + "w2")).shape() == Shape{1, 64, 2});
    CHECK(floats(tensor(c, b_name(kLayer + "w2"))) ==
          floats(equal.tensors().at(b_name(kLayer + "5.down_proj"))));
    CHECK(tensor(c, a_name(kLayer + "w2")).shape() == Shape{8, 2, 24});
  }
  SUBCASE("an absent expert has no outer factor") {
    CHECK(!refused(made, "shared-outer", "qwen3_moe").empty());
  }
  SUBCASE("scales of their own") {
    MadeAdapter scaled = with(R"(, "alpha_pattern": {"experts.3.down_proj": 1})");
    scaled.pair(kLayer + "0.down_proj", {2, 24}, {64, 2})
        .pair(kLayer + "3.down_proj", {2, 24}, {64, 2});
    CHECK(refused(scaled, "stacked", "qwen3_moe") ==
          "layer 1 down_proj: experts 0 and 3 have the scales 2 and 0.5; a stacked tensor has one");
    CHECK(refused(scaled, "peft-params", "qwen3_moe") ==
          "layer 1 down_proj: experts 0 and 3 have the scales 2 and 0.5; one parameter has one");
    CHECK(refused_hint(scaled, "peft-params", "qwen3_moe") == "use --to peft-linear");
    CHECK(refused(scaled, "linear-fused", "qwen3_moe").empty());
  }
  SUBCASE("an absent expert's scale makes no difference") {
    MadeAdapter scaled = with(R"(, "alpha_pattern": {"down_proj": 1})");
    scaled.pair(kLayer + "2.down_proj", {2, 24}, {64, 2})
        .pair(kLayer + "3.down_proj", {2, 24}, {64, 2});
    for (const char* to : {"stacked", "peft-params"}) {
      CHECK(refused(scaled, to, "qwen3_moe").empty());
      CHECK(made.read("qwen3_moe").adapter.config.r == 2);
    }
    const AdapterConfig out =
        parse_adapter_config(scaled.convert("peft-params", "qwen3_moe").config, "");
    CHECK(out.scaling("model.layers.1.mlp.experts.down_proj") == Scaling{2, 1, false});
  }
}

TEST_CASE("absent experts and lower ranks are zeros of a stacked tensor") {
  MadeAdapter made =
      with(R"(, "rank_pattern": {"3.down_proj": 1}, "alpha_pattern": {"3.down_proj": 2})");
  made.pair(kLayer + "1.down_proj", {2, 24}, {64, 2})
      .pair(kLayer + "3.down_proj", {1, 24}, {64, 1});
  const Conversion c = made.convert("stacked", "qwen3_moe");
  const Tensor a = tensor(c, a_name(kLayer + "down_proj")),
               b = tensor(c, b_name(kLayer + "down_proj"));
  CHECK(a.shape() == Shape{8, 2, 24});
  CHECK(b.shape() == Shape{8, 64, 2});
  const auto zero = [](const Tensor& t) {
    for (const float v : floats(t))
      if (v != 0) return false;
    return true;
  };
  for (const int64_t e : {0, 2, 4, 7}) {
    CHECK(zero(a.select(0, e)));
    CHECK(zero(b.select(0, e)));
  }
  CHECK(floats(a.select(0, 1)) == floats(made.tensors().at(a_name(kLayer + "1.down_proj"))));
  CHECK(floats(a.select(0, 3).slice(0, 0, 1)) ==
        floats(made.tensors().at(a_name(kLayer + "3.down_proj"))));
  CHECK(zero(a.select(0, 3).slice(0, 1, 1)));
  CHECK(floats(b.select(0, 3).slice(1, 0, 1)) ==
        floats(made.tensors().at(b_name(kLayer + "3.down_proj"))));
  CHECK(zero(b.select(0, 3).slice(1, 1, 1)));
}

TEST_CASE("experts of different types fit layouts that hold them apart") {
  MadeAdapter made = numbered();
  const std::string odd = a_name(kLayer + "3.up_proj");
  made.set(odd, cast_tensors({{"", made.tensors().at(odd)}}, DType::F16).begin()->second);
  CHECK(refused(made, "stacked", "qwen3_moe") ==
        "model.layers.1.mlp.experts.3.up_proj.lora_A: is of F16 and "
        "model.layers.1.mlp.experts.0.up_proj.lora_A is of F32: stacked holds them in one tensor");
  CHECK(refused_hint(made, "stacked", "qwen3_moe") ==
        "make them one type with --dtype f32, which changes no value of 16 bits");
  CHECK(refused(made, "peft-linear", "qwen3_moe").empty());
  CHECK(refused(made, "linear-fused", "qwen3_moe") ==
        "model.layers.1.mlp.experts.3.up_proj.lora_A: is of F16 and "
        "model.layers.1.mlp.experts.3.gate_proj.lora_A is of F32: linear-fused holds them in one "
        "tensor");
  const std::string also = a_name(kLayer + "0.up_proj");  // all of up: gate stands apart from it
  made.set(also, cast_tensors({{"", made.tensors().at(also)}}, DType::F16).begin()->second);
  CHECK(refused(made, "stacked", "qwen3_moe").empty());
  CHECK(refused(made, "stacked-fused", "qwen3_moe").find(": is of ") != std::string::npos);
}

TEST_CASE("a model without a gate has up and down") {
  const std::string stem = "model.layers.1.mixer.experts.";
  MadeAdapter tinker;  // as Tinker saves it: w1 is up, w3 empty
  tinker.pair(stem + "w1", {1, 2, 64}, {4, 24, 2})
      .pair(stem + "w3", {0, 2, 64}, {0, 24, 2})
      .pair(stem + "w2", {4, 2, 24}, {1, 64, 2});
  SUBCASE("Tinker's w1 is up, with the base model and without") {
    for (const char* family : {"", "nemotron_h"}) {
      const Adapter adapter = tinker.read(family).adapter;
      CHECK(adapter.experts.size() == 2);
      CHECK(adapter.experts.count({1, Projection::gate}) == 0);
      CHECK(floats(adapter.experts.at({1, Projection::up}).b.at(2)) ==
            floats(tinker.tensors().at(b_name(stem + "w1")).select(0, 2)));
    }
  }
  SUBCASE("written one by one in the hub's names") {
    const Conversion c = tinker.convert("peft-linear", "nemotron_h");
    CHECK(c.tensors.size() == 2 * 2 * 4);
    CHECK(floats(tensor(c, b_name("backbone.layers.1.mixer.experts.2.up_proj"))) ==
          floats(tinker.tensors().at(b_name(stem + "w1")).select(0, 2)));
  }
  SUBCASE("written as parameters: up inside down") {
    const Conversion c = tinker.convert("peft-params", "nemotron_h");
    CHECK(tensor(c, a_name("model.layers.1.mixer.experts.base_layer")).shape() == Shape{8, 64});
    CHECK(tensor(c, a_name("model.layers.1.mixer.experts")).shape() == Shape{8, 24});
  }
  SUBCASE("a layout of gate_up cannot hold it") {
    for (const char* to : {"stacked-fused", "linear-fused"}) {
      CHECK(refused(tinker, to, "nemotron_h") ==
            std::string(to) + ": cannot hold experts without a gate: there is no gate_up_proj");
      CHECK(refused_hint(tinker, to, "nemotron_h") ==
            "use --to peft-linear, stacked or peft-params");
    }
  }
  SUBCASE("up alone, without a base model, may be half of a gate_up") {
    MadeAdapter up;
    up.pair(stem + "up_proj", {4, 2, 64}, {4, 24, 2});
    CHECK(refused(up, "peft-params") ==
          "layer 1 up_proj: a gated model's up is part of gate_up_proj, and no base model says "
          "that this one has no "
          "gate");
    CHECK(refused_hint(up, "peft-params") == "name it with --base");
  }
}

TEST_CASE("without a base model gate and up cannot become the family's parameter") {
  MadeAdapter made;
  made.pair(kLayer + "gate_proj", {8, 2, 64}, {8, 24, 2})
      .pair(kLayer + "up_proj", {8, 2, 64}, {8, 24, 2});
  CHECK(refused(made, "peft-params") ==
        "peft-params: whether gate and up rows are halves or interleaved in the base parameter "
        "depends on the model "
        "family, and no base model is known");
  CHECK(refused_hint(made, "peft-params") == "name it with --base");
  CHECK(refused(made, "stacked-fused").empty());
}

TEST_CASE("numbered experts do not say how many there are") {
  MadeAdapter one, three;
  one.pair(kLayer + "0.down_proj", {2, 24}, {64, 2});
  three.pair(kLayer + "2.down_proj", {2, 24}, {64, 2});
  for (const char* to : {"stacked", "shared-outer", "stacked-fused", "peft-params"}) {
    CAPTURE(to);
    CHECK(refused(one, to) ==
          "expert 0: is the only one with LoRA, and how many experts there are is not known: one "
          "slice would mean one matrix for all of them");
    CHECK(refused_hint(one, to) == "name the base model with --base");
  }
  CHECK(refused(one, "linear-fused").empty());
  CHECK(tensor(one.convert("stacked", "qwen3_moe"), a_name(kLayer + "down_proj")).dim(0) == 8);
  const Conversion c = three.convert("stacked");
  CHECK(tensor(c, a_name(kLayer + "down_proj")).dim(0) == 3);
  REQUIRE(c.notes.size() == 1);
  CHECK(c.notes[0] ==
        "without a base model, the highest number says that there are 3 experts: whether "
        "the last ones are missing is not checked");
  CHECK(three.convert("linear-fused").notes.empty());
  MadeAdapter counted;
  counted.pair(kLayer + "down_proj", {3, 2, 24}, {3, 64, 2});
  CHECK(counted.convert("peft-params").notes.empty());
  CHECK(three.convert("stacked", "qwen3_moe").notes.empty());
}

TEST_CASE("an unknown layout is an error with experts and without") {
  MadeAdapter dense;
  dense.pair("model.layers.0.self_attn.q_proj", {2, 64}, {64, 2});
  CHECK(refused(numbered(), "pfet-linear") ==
        "--to: unknown layout 'pfet-linear' (did you mean 'peft-linear'?)");
  CHECK(refused(dense, "pfet-linear") ==
        "--to: unknown layout 'pfet-linear' (did you mean 'peft-linear'?)");
  CHECK(refused(dense, "peft-linear").empty());
}
