// Adapters of models whose two forms differ by more than names: experts that are never run, modules
// that one form joins, a second set of experts that nothing describes.

#include <doctest/doctest.h>

#include <algorithm>

#include "tests/adapter/made_adapter.h"
#include "tests/io/error_text.h"

using namespace moelora;
using namespace moelora::test;

namespace {

constexpr int64_t kRank = 2, kExperts = 7, kIdle = 2;
const std::string kStem = "model.layers.1.mlp.experts";

// LongCat's as PEFT trains it: gate_up_proj [9, 44, 60] innermost, down_proj [7, 60, 22].
MadeAdapter longcat() {
  return MadeAdapter(R"({"r": 2, "lora_alpha": 4, "target_parameters":
                         ["mlp.experts.gate_up_proj", "mlp.experts.down_proj"]})")
      .pair(kStem + ".base_layer", {(kExperts + kIdle) * kRank, 60},
            {44, (kExperts + kIdle) * kRank})
      .pair(kStem, {kExperts * kRank, 22}, {60, kExperts * kRank});
}

// Whether found[i] is from[at(i / width, i % width)], row-major.
template <class F>
bool is_picked(const Tensor& found, const Tensor& from, F&& at) {
  const std::vector<float> here = floats(found), all = floats(from);
  const auto width = static_cast<size_t>(found.dim(1)), columns = static_cast<size_t>(from.dim(1));
  for (size_t i = 0; i < here.size(); ++i) {
    const auto [row, column] = at(i / width, i % width);
    if (here[i] != all[row * columns + column]) return false;
  }
  return !here.empty();
}

bool is_zero(const Tensor& tensor) {
  for (const float value : floats(tensor))
    if (value != 0) return false;
  return tensor.elements() > 0;
}

}  // namespace

TEST_CASE("factors of experts that are never run are left out, the others stay in their places") {
  const MadeAdapter made = longcat();
  const Conversion c = made.convert("peft-linear", "longcat_flash");
  CHECK(c.tensors.size() == 7 * 3 * 2);
  for (const size_t e : {size_t{0}, size_t{6}}) {
    const std::string expert = kStem + "." + std::to_string(e) + ".";
    CAPTURE(expert);
    const Tensor &gate_up_a = made.tensors().at(a_name(kStem + ".base_layer")),
                 &gate_up_b = made.tensors().at(b_name(kStem + ".base_layer"));
    using At = std::pair<size_t, size_t>;
    // A row e * r + k; B column k * E + e, of nine experts.
    for (const char* half : {"gate_proj", "up_proj"}) {
      const size_t first = std::string(half) == "up_proj" ? 22 : 0;
      CHECK(is_picked(c.tensors.at(a_name(expert + half)), gate_up_a,
                      [&](size_t k, size_t column) { return At(e * kRank + k, column); }));
      CHECK(is_picked(c.tensors.at(b_name(expert + half)), gate_up_b,
                      [&](size_t row, size_t k) { return At(first + row, k * 9 + e); }));
    }
    CHECK(is_picked(c.tensors.at(b_name(expert + "down_proj")), made.tensors().at(b_name(kStem)),
                    [&](size_t row, size_t k) { return At(row, k * 7 + e); }));
  }
  CHECK(
      std::find(
          c.notes.begin(), c.notes.end(),
          "gate_up_proj has room for 2 experts that are never run: what is of them is left out") !=
      c.notes.end());
}

TEST_CASE("PEFT's parameters are written with the room that the model has") {
  const Conversion there = longcat().convert("peft-linear", "longcat_flash");
  MadeAdapter numbered;
  for (const auto& [name, tensor] : there.tensors) {
    numbered.add(name, tensor.shape());
    numbered.set(name, tensor);
  }
  const Conversion back = numbered.convert("peft-params", "longcat_flash");
  const MadeAdapter made = longcat();
  const Tensor &a = back.tensors.at(a_name(kStem + ".base_layer")),
               &b = back.tensors.at(b_name(kStem + ".base_layer"));
  CHECK(a.shape() == Shape{18, 60});
  CHECK(b.shape() == Shape{44, 18});
  CHECK(a.slice(0, 0, 14).read() ==
        made.tensors().at(a_name(kStem + ".base_layer")).slice(0, 0, 14).read());
  CHECK(is_zero(a.slice(0, 14, 4)));
  CHECK(is_zero(b.reshape({44, 2, 9}).slice(2, 7, 2)));
  CHECK(b.reshape({44, 2, 9}).slice(2, 0, 7).read() ==
        made.tensors().at(b_name(kStem + ".base_layer")).reshape({44, 2, 9}).slice(2, 0, 7).read());
  CHECK(back.tensors.at(b_name(kStem)).read() == made.tensors().at(b_name(kStem)).read());
}

TEST_CASE("an expert that is never run has no name of its own, and no room in a stack of seven") {
  MadeAdapter eighth;
  eighth.pair(kStem + ".7.gate_proj", {2, 60}, {22, 2});
  CHECK(error_text([&] {
          eighth.convert("peft-params", "longcat_flash");
        }).find("names expert 7, expected one below 7") != std::string::npos);
  MadeAdapter seven(longcat().config());
  seven.pair(kStem + ".base_layer", {14, 60}, {44, 14}).pair(kStem, {14, 22}, {60, 14});
  CHECK(error_text([&] {
          seven.convert("peft-linear", "longcat_flash");
        }).find("has 14 rows, not a multiple of the 9 experts") != std::string::npos);
}

TEST_CASE(
    "a module of one form whose rows are not known is not written in the other, and says why") {
  const std::string expert = "model.layers.0.mlp.experts";
  const ModelSpec& spec = catalogue_base("lara_mini").spec;
  const auto module = std::find_if(
      spec.linears.begin(), spec.linears.end(),
      [](const auto& linear) { return linear.memory.ends_with("linear_attn.in_proj"); });
  REQUIRE(module != spec.linears.end());
  MadeAdapter made;
  made.pair(module->memory, {2, module->in}, {module->out, 2})
      .pair(expert + ".0.down_proj", {2, spec.intermediate}, {spec.hidden, 2});
  CHECK(error_text([&] {
          made.convert("peft-params", "lara_mini");
        }).find("is a module of the hub's files only: the classes of lara_mini have others") !=
        std::string::npos);
}

TEST_CASE("peft-linear has the hub's names of experts and modules, others have those in memory") {
  const std::string layer = "model.language_model.layers.1.mlp.";
  MadeAdapter made(R"({"r": 2, "lora_alpha": 4, "target_parameters": ["mlp.experts.down_proj"]})");
  made.pair(layer + "experts", {14, 26}, {60, 14})
      .pair(layer + "shared_experts.down_proj", {2, 36}, {60, 2});
  const std::string hub = "language_model.model.layers.1.block_sparse_moe.";
  const Conversion c = made.convert("peft-linear", "minimax_m3_vl");
  CHECK(c.tensors.count(a_name(hub + "experts.6.w2")) == 1);
  CHECK(c.tensors.count(a_name(hub + "shared_experts.down_proj")) == 1);

  // Inkling's hub batches its experts: names stay as they are in memory.
  MadeAdapter inkling;
  inkling.pair("model.llm.layers.0.attn.wq_du", {2, 60}, {40, 2});
  CHECK(inkling.convert("peft-linear", "inkling")
            .tensors.count(a_name("model.language_model.layers.0.self_attn.q_proj")) == 1);
}

TEST_CASE("the second set of experts of a layer is refused, not taken for the first") {
  MadeAdapter vision;
  vision.pair("model.layers.1.mlp.experts.7.gate_proj", {2, 60}, {14, 2});
  CHECK(error_text([&] {
          vision.convert("peft-params", "ernie4_5_vl_moe");
        }).find("names expert 7, expected one below 7") != std::string::npos);
  MadeAdapter text;
  text.pair("model.layers.1.mlp.experts.6.gate_proj", {2, 60}, {22, 2});
  CHECK(text.convert("peft-params", "ernie4_5_vl_moe")
            .tensors.count(a_name("model.language_model.layers.1.mlp.text_moe.experts")) == 1);
}
