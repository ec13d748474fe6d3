// Names of an adapter taken apart: where each factor stands, and which belong together.

#include "lib/check/subject/adapter_parts.h"

#include <doctest/doctest.h>

#include "lib/adapter/adapter_file.h"
#include "lib/check/specimen.h"

using namespace moelora;

namespace {

using PlaceForm = ExpertPath::Form;

TensorMap tensors(const std::vector<std::string>& names) {
  TensorMap out;
  for (const std::string& name : names) out[name] = Tensor::zeros(DType::F32, {4, 64});
  return out;
}

AdapterParts apart(const std::vector<std::string>& names) {
  const TensorMap map = tensors(names);
  return take_apart(map, expert_tensors(map), nullptr);
}

ExpertPath place(const std::string& rest) {
  return *parse_expert_path("model.layers.3.mlp.experts" + (rest.empty() ? "" : "." + rest));
}

}  // namespace

TEST_CASE("every layout's names have a place below the experts") {
  CHECK(place("7.gate_proj").form == PlaceForm::numbered);
  CHECK(place("7.gate_proj").expert == 7);
  CHECK(place("7.w3").projection == Projection::up);
  CHECK(place("7.gate_up_proj").projection == Projection::gate_up);
  CHECK(place("gate_up_projs.7").form == PlaceForm::plural);
  CHECK(place("gate_up_projs.7").expert == 7);
  CHECK(place("w2").form == PlaceForm::named);
  CHECK(place("w2").projection == Projection::down);
  CHECK(!place("w2").expert);
  CHECK(place("").form == PlaceForm::parameters);
  CHECK(place("base_layer.base_layer").nesting == 2);
  for (const char* rest :
       {"shared.gate_proj", "7", "x.gate_proj", "07.gate_proj", "7.gate", "base"})
    CHECK(place(rest).form == PlaceForm::unknown);
  CHECK(place("7.w1").layer == 3);
}

TEST_CASE("factors of a module are one pair, whatever stands between them") {
  const AdapterParts parts = apart({
      "base_model.model.a.lora_A.weight",
      "base_model.model.a.lora_B.weight",
      "base_model.model.a.lora_embedding_A",
      "base_model.model.a.lora_embedding_B",
      "base_model.model.b.lora_A.default.weight",
      "base_model.model.b.x.lora_A.weight",
      "base_model.model.b.lora_B.default.weight",
      "base_model.model.c.lora_B.weight",
      "base_model.model.d.weight",
  });
  std::vector<std::pair<std::string, std::string>> pairs;
  for (const FactorPair& pair : parts.pairs)
    pairs.emplace_back(parts.a(pair) ? parts.a(pair)->module : "",
                       parts.b(pair) ? parts.b(pair)->module : "");
  using Pairs = std::vector<std::pair<std::string, std::string>>;
  CHECK(pairs == Pairs{{"a", "a"}, {"a", "a"}, {"b", "b"}, {"b.x", ""}, {"", "c"}});
}

TEST_CASE("a factor that is spelled twice is in one pair once") {
  const AdapterParts parts = apart(
      {"base_model.model.a.lora_A.weight", "a.lora_A.weight", "base_model.model.a.lora_B.weight"});
  REQUIRE(parts.pairs.size() == 1);
  CHECK(parts.a(parts.pairs[0])->name == "a.lora_A.weight");
  CHECK(parts.b(parts.pairs[0])->name == "base_model.model.a.lora_B.weight");
}

TEST_CASE("the layer is the first number behind a component called layers") {
  const AdapterParts parts = apart({"layers.7.a.lora_A.weight", "m.layers.12.a.lora_A.weight",
                                    "m.sublayers.3.a.lora_A.weight", "m.layers.x.a.lora_A.weight",
                                    "m.layers.x.layers.4.a.lora_A.weight"});
  std::map<std::string, int> layers;
  for (const NamedTensor& tensor : parts.tensors) layers[tensor.name] = tensor.layer;
  CHECK(layers["layers.7.a.lora_A.weight"] == 7);
  CHECK(layers["m.layers.12.a.lora_A.weight"] == 12);
  CHECK(layers["m.sublayers.3.a.lora_A.weight"] == -1);
  CHECK(layers["m.layers.x.a.lora_A.weight"] == -1);
  CHECK(layers["m.layers.x.layers.4.a.lora_A.weight"] == 4);
}

TEST_CASE("names that differ in numbers have one pattern") {
  CHECK(without_numbers("model.layers.3.mlp.experts.17.w1") ==
        "model.layers.{n}.mlp.experts.{n}.w1");
  CHECK(without_numbers("a.b2.c") == "a.b2.c");
  CHECK(without_numbers("12") == "{n}");
  CHECK(without_numbers("") == "");
}
