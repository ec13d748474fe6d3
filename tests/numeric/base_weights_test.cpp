#include "lib/numeric/base_weights.h"

#include <doctest/doctest.h>

#include <cmath>

#include "lib/base/cast.h"
#include "lib/base/error.h"
#include "lib/io/weights.h"
#include "lib/model/base_convert.h"
#include "lib/model/base_model.h"
#include "tests/numeric/made_tensor.h"

namespace moelora::test {
namespace {

const std::string kData = MOELORA_TEST_DATA;

void check_against_plain(const std::string& folder, const std::string& weights) {
  const BaseModel base = open_base(folder);
  const TensorMap tensors = open_weights(weights, {"model"}).tensors;
  const PlainExperts plain(tensors, base.spec);
  for (const int layer : {0, 1}) {
    const BaseWeights found = read_base_weights(tensors, base.spec, layer, folder);
    for (const Projection p : {Projection::gate, Projection::up, Projection::down}) {
      for (int64_t e = 0; e < base.spec.experts; ++e) {
        CAPTURE(e);
        CHECK(found.weight(p, e).read() == plain.weight({layer, e, p})->bytes);
        CHECK(found.bias(p, e)->read() == plain.bias({layer, e, p})->bytes);
      }
    }
  }
}

// A model of 2 experts, H = 8, I = 16, layer 3 of a Mixtral.
ModelSpec small_spec() {
  ModelSpec spec;
  spec.experts = 2;
  spec.expert_in = 8;
  spec.intermediate = 16;
  spec.hub = {true,
              "model.layers.{layer}.block_sparse_moe.experts",
              "w1",
              "w3",
              "",
              "w2",
              ExpertAxes::out_in};
  spec.memory = {false,
                 "model.layers.{layer}.mlp.experts",
                 "",
                 "",
                 "gate_up_proj",
                 "down_proj",
                 ExpertAxes::out_in};
  spec.moe_layers = {true, true, true, true};
  return spec;
}

std::string module_of(int64_t expert, const std::string& name) {
  return "model.layers.3.block_sparse_moe.experts." + std::to_string(expert) + "." + name;
}

// Packed INT4, one scale per row: value (row + column + expert) % 8, scale 0.5.
TensorMap packed_tensors() {
  TensorMap out;
  for (int64_t e = 0; e < 2; ++e) {
    for (const char* name : {"w1", "w3", "w2"}) {
      const bool down = std::string(name) == "w2";
      const int64_t rows = down ? 8 : 16, columns = down ? 16 : 8;
      std::vector<uint32_t> words(static_cast<size_t>(rows * columns / 8));
      for (int64_t i = 0; i < rows * columns; ++i) {
        const auto value = static_cast<uint32_t>((i / columns + i % columns + e) % 8 + 8);
        words[static_cast<size_t>(i / 8)] |= value << (i % 8 * 4);
      }
      out[module_of(e, name) + ".weight_packed"] =
          made_tensor(DType::I32, {rows, columns / 8}, words);
      out[module_of(e, name) + ".weight_scale"] =
          Tensor::of_f32({rows, 1}, std::vector<float>(static_cast<size_t>(rows), 0.5F));
      out[module_of(e, name) + ".weight_shape"] =
          made_tensor<int64_t>(DType::I64, {2}, {rows, columns});
    }
  }
  return out;
}

TensorMap fp8_tensors() {
  TensorMap out;
  for (int64_t e = 0; e < 2; ++e) {
    for (const char* name : {"w1", "w3", "w2"}) {
      const bool down = std::string(name) == "w2";
      const Shape shape = down ? Shape{8, 16} : Shape{16, 8};
      out[module_of(e, name) + ".weight"] =
          made_tensor(DType::F8_E4M3, shape, std::vector<uint8_t>(128, 0x38));  // 1.0
      out[module_of(e, name) + ".weight_scale_inv"] =
          Tensor::of_f32({1, 1}, std::vector<float>{static_cast<float>(e) + (down ? 0.25F : 0.5F)});
    }
  }
  return out;
}

std::string text_of(const TensorMap& tensors) {
  try {
    read_base_weights(tensors, small_spec(), 3, "base");
  } catch (const Error& error) {
    return error.what();
  }
  return "";
}

}  // namespace

TEST_CASE("A gpt-oss base reads the same as by plain index arithmetic") {
  SUBCASE("BF16") { check_against_plain(kData + "/gpt_oss/base", kData + "/gpt_oss/base"); }
  SUBCASE("MXFP4") { check_against_plain(kData + "/mxfp4/base", kData + "/mxfp4/base"); }
}

TEST_CASE("MXFP4 weights are those that transformers decodes") {
  const BaseModel base = open_base(kData + "/mxfp4/base");
  const TensorMap packed = open_weights(kData + "/mxfp4/base", {"model"}).tensors;
  const TensorMap decoded = open_safetensors(kData + "/mxfp4/base.dequantized.safetensors").tensors;
  const BaseWeights found = read_base_weights(packed, base.spec, 1, "packed");
  CHECK(found.form == "MXFP4");
  for (int64_t e = 0; e < 4; ++e) {  // [in, out], gate in the even columns
    const Tensor gate_up = decoded.at("model.layers.1.mlp.experts.gate_up_proj").select(0, e);
    const Tensor down = decoded.at("model.layers.1.mlp.experts.down_proj").select(0, e);
    const Tensor pairs = gate_up.reshape({64, 96, 2});
    CHECK(found.weight(Projection::gate, e).read() == pairs.select(2, 0).transpose(0, 1).read());
    CHECK(found.weight(Projection::up, e).read() == pairs.select(2, 1).transpose(0, 1).read());
    CHECK(found.weight(Projection::down, e).read() == down.transpose(0, 1).read());
  }
}

TEST_CASE("Packed integers are read expert by expert, under the family's names") {
  const BaseWeights found = read_base_weights(packed_tensors(), small_spec(), 3, "base");
  CHECK(found.form == "INT4 with a scale per row");
  CHECK(found.biases.empty());
  CHECK(found.weight(Projection::up, 1).shape() == Shape{16, 8});
  CHECK(found.weight(Projection::down, 1).dtype() == DType::F64);
  const std::vector<double> down = read_double(found.weight(Projection::down, 1));
  CHECK(down[3 * 16 + 2] == 0.5 * ((3 + 2 + 1) % 8));
}

TEST_CASE("FP8 is read expert by expert") {
  const BaseWeights found = read_base_weights(fp8_tensors(), small_spec(), 3, "base");
  CHECK(found.form == "FP8 in blocks of 128x128");
  CHECK(read_double(found.weight(Projection::gate, 1)) == std::vector<double>(128, 1.5));
  CHECK(read_double(found.weight(Projection::down, 0)) == std::vector<double>(128, 0.25));
}

TEST_CASE("A base of which something is missing or does not fit is refused") {
  TensorMap packed = packed_tensors(), fp8 = fp8_tensors();
  CHECK(text_of(packed).empty());
  SUBCASE("a scale") {
    packed.erase(module_of(1, "w3") + ".weight_scale");
    CHECK(text_of(packed) == "base: the tensor " + module_of(1, "w3") + ".weight_scale is missing");
  }
  SUBCASE("a shape that is not the config's") {
    packed[module_of(1, "w3") + ".weight_shape"] = made_tensor<int64_t>(DType::I64, {2}, {16, 7});
    CHECK(text_of(packed) ==
          "base: " + module_of(1, "w3") + ": is a [16, 7] matrix, the config says [16, 8]");
  }
  SUBCASE("a shape of another type") {
    packed[module_of(1, "w3") + ".weight_shape"] = Tensor::of_f32({2}, std::vector<float>{16, 8});
    CHECK(text_of(packed) ==
          "base: " + module_of(1, "w3") + ".weight_shape: is F32 [2], expected two I64 or I32");
  }
  SUBCASE("an FP8 scale") {
    fp8.erase(module_of(0, "w2") + ".weight_scale_inv");
    CHECK(text_of(fp8) != "");
  }
  SUBCASE("everything") { CHECK(text_of({}) == "base: holds no experts of layer 3"); }
}

TEST_CASE("The synthetic base is the same everywhere, of the right size, another for each expert") {
  const SyntheticBase shape{3, 64, 32, true, true, 9, 4};
  const BaseWeights a = synthetic_base(shape), b = synthetic_base(shape);
  CHECK(a.form == "synthetic, seed 9");
  const std::vector<double> up = read_double(a.weight(Projection::up, 2));
  CHECK(up == read_double(b.weight(Projection::up, 2)));
  CHECK(up != read_double(a.weight(Projection::up, 1)));
  CHECK(up != read_double(a.weight(Projection::gate, 2)));
  double sum = 0, squares = 0;
  for (const double v : up) sum += v, squares += v * v;
  CHECK(std::abs(sum / static_cast<double>(up.size())) < 0.02);
  CHECK(squares / static_cast<double>(up.size()) == doctest::Approx(1.0 / 64).epsilon(0.1));
  CHECK(up[0] == 0.11279296875);  // never changes: a report names only the seed
  SyntheticBase other = shape;
  other.layer = 5;
  CHECK(up != read_double(synthetic_base(other).weight(Projection::up, 2)));
}

}  // namespace moelora::test
