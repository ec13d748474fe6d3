// Family files that somebody wrote by hand (--model-spec).
#include "lib/model/family.h"

#include <doctest/doctest.h>

#include <fstream>

#include "lib/model/base_model.h"
#include "tests/io/error_text.h"
#include "tests/io/temp_folder.h"
#include "tests/model/catalogue.h"

namespace moelora {
namespace {

// FAMILY.json with one piece of text replaced, where it first is.
std::string edited(const std::string& from, const std::string& to,
                   const std::string& family = "mixtral") {
  std::ifstream in(MOELORA_SOURCE_DIR "/schemas/models/" + family + ".json");
  std::string text(std::istreambuf_iterator<char>(in), {});
  const size_t at = text.find(from);
  REQUIRE(at != std::string::npos);
  return text.replace(at, from.size(), to);
}

// What parsing says, without "f.json:LINE:COLUMN: ".
std::string fault(const std::string& from, const std::string& to,
                  const std::string& family = "mixtral") {
  const std::string text =
      error_text([&] { parse_family(parse_json(edited(from, to, family), "f.json"), "f.json"); });
  if (text.empty()) return text;
  CHECK(text.rfind("f.json:", 0) == 0);
  return text.substr(text.find(": ") + 2);
}

}  // namespace

TEST_CASE("A family file that breaks the schema is refused at its place") {
  CHECK(fault("\"mixtral\"", "\"mixtral\"") == "");
  CHECK(fault("\"layers\": {\"moe\": \"all\"},", "") == "the key \"layers\" is missing");
  CHECK(fault("\"layers\": {\"moe\": \"all\"}", "\"layers\": {}") ==
        "/layers: the choice \"moe\" is missing");
  CHECK(fault("\"hub_names\"", "\"hubnames\"").find("/hubnames: unknown key, expected one of: ") ==
        0);
  CHECK(fault("\"axes\": \"out_in\"", "\"axes\": \"in\"") ==
        "/experts/memory/axes: found \"in\", expected one of: in_out, out_in, rows");
  CHECK(fault("\"axes\": \"out_in\"", "\"axes\": \"rows\"") ==
        "/experts/memory/axes: gate and up in one have no rows of one expert in a run");
  CHECK(fault("\"axes\": \"out_in\", ", "") == "/experts/memory: the key \"axes\" is missing");
  CHECK(fault("\"role\": \"router\"", "\"role\": \"gate\"")
            .find("/modules/1/role: found \"gate\", expected one of: attention, mixer") == 0);
  CHECK(fault("\"linear_in\": [\"hub\"]", "\"linear_in\": \"hub\"") ==
        "/modules/1/linear_in: found a string, expected an array");
  CHECK(fault("[\"heads * head_dim\", \"hidden\"]", "[\"heads * head_dim\"]") ==
        "/modules/0/linears/q_proj: found 1 dimensions, expected [out, in]");
  CHECK(fault("\"heads * head_dim\"", "\"heads x head_dim\"") ==
        "unexpected 'x' at character 7 of \"heads x head_dim\"");
  CHECK(fault("\"heads * head_dim\"", "\"heads * head_size\"") ==
        "/modules/0/linears/q_proj: no value is called \"head_size\"");
  CHECK(fault("\"heads * head_dim\"", "1.5") ==
        "/modules/0/linears/q_proj/0: found a number, expected an expression such as \"2 * "
        "heads * head_dim\"");
  CHECK(fault("\"default\": \"hidden / heads\"", "\"default\": \"hidden / queries\"") ==
        "/values/head_dim: no value is called \"queries\"");
  CHECK(fault("\"vocab\": \"vocab_size\",", "") == "/values: no value is called \"vocab\"");
  CHECK(fault("{\"keys\": \"head_dim\",", "{\"key\": \"head_dim\",")
            .find("/values/head_dim/key: unknown key") == 0);
  CHECK(fault("\"default\": \"hidden / heads\"", "\"function\": \"half\"") ==
        "/values/head_dim/function: no function is called \"half\"");
  CHECK(fault("\"numbered\": {\"gate\": \"w1\", \"up\"",
              "\"numbered\": {\"gate\": \"w1\", \"gate_up\": \"w13\", \"up\"") ==
        "/experts/hub/numbered: expected either \"up\" or \"gate_up\"");
  CHECK(fault("\"role\": \"router\",", "\"role\": \"router\", \"layers\": \"not dense\",") ==
        "/modules/1/layers: no layer choice is called \"dense\"");
  CHECK(fault("\"gate\": \"w1\", ", "") ==
        "/experts/hub: names no gate, but the experts are gated");
  CHECK(fault("\"experts\": {\n", "\"experts\": {\"gated\": false,\n") ==
        "/experts/memory: names a gate, but the experts are not gated");
  CHECK(fault("model.layers.{layer}", "model.layers") ==
        "/layer: found \"model.layers\", expected a path that ends in {layer}");
  CHECK(fault("\"role\": \"router\",", "\"role\": \"router\", \"if\": \"shared\",") ==
        "/modules/1: no value is called \"shared\"");
}

TEST_CASE("A family file of an encoder and a decoder that breaks the schema is refused") {
  const auto nllb = [](const std::string& from, const std::string& to) {
    return fault(from, to, "nllb_moe");
  };
  CHECK(nllb("\"nllb_moe\"", "\"nllb_moe\"") == "");
  CHECK(nllb("\"stacks\": [", "\"stacks\": [], \"per_layer\": [") ==
        "/stacks: found no stack of layers, expected at least one");
  CHECK(nllb("\"stacks\": [", "\"stack\": [").find("/stack: unknown key") == 0);
  CHECK(nllb("\"stacks\": [", "\"hub_names\": {}, \"aliases\": [") ==
        "the key \"layer\" is missing");
  CHECK(nllb("\"stacks\": [", "\"layer\": \"model.{layer}\", \"stacks\": [") ==
        "/layer: stands beside \"stacks\", each of which has its own layers and modules");
  CHECK(nllb("\"stacks\": [", "\"experts\": {}, \"stacks\": [").find("/experts: ") == 0);
  CHECK(nllb("\"stacks\": [", "\"forward\": {}, \"stacks\": [") ==
        "/forward: is known for families of one stack of layers alone");
  CHECK(nllb("\"layer\": \"model.encoder.layers.{layer}\",", "") ==
        "/stacks/0: the key \"layer\" is missing");
  CHECK(nllb("model.decoder.layers.{layer}", "model.decoder.layers") ==
        "/stacks/1/layer: found \"model.decoder.layers\", expected a path that ends in {layer}");
  CHECK(nllb("\"count\": \"encoder_layers\",", "") == "/stacks/0: the key \"count\" is missing");
  CHECK(nllb("\"count\": \"decoder_layers\"", "\"count\": \"layers\"") ==
        "/values: no value is called \"layers\"");
  CHECK(nllb("{\"every\": \"encoder_step\", \"if\": \"encoder_step\"}",
             "{\"every\": \"encoder_step\", \"if\": \"step\"}") ==
        "/stacks/0/layers/moe: no value is called \"step\"");
  CHECK(nllb("\"layers\": \"not moe\"", "\"layers\": \"dense\"") ==
        "/stacks/0/modules/1/layers: no layer choice is called \"dense\"");
  CHECK(nllb("\"layer\": \"model.decoder", "\"hub\": 1, \"layer\": \"model.decoder")
            .find("/stacks/1/hub: unknown key, expected one of: layer, count") == 0);
  CHECK(nllb("ffn.experts.expert_{expert}", "ffn.experts") ==
        "/stacks/0/modules/3/path: names no {expert}, but the role is that of experts");
  CHECK(nllb("\"path\": \"self_attn\"", "\"path\": \"self_attn.{expert}\"") ==
        "/stacks/0/modules/0/path: names an {expert}, but the role is not that of experts");
  CHECK(nllb("\"experts\": {\"keys\": \"num_experts\", \"default\": 128},", "")
            .find("no value is called \"experts\"") != std::string::npos);
  CHECK(
      fault("\"sparse_encoder_layers\": {\"keys\": \"num_sparse_encoder_layers\", \"default\": 3},",
            "", "switch_transformers") ==
      "/values/encoder_step: no value is called \"sparse_encoder_layers\"");
}

TEST_CASE("--model-spec adds a family or replaces an embedded one") {
  const TempFolder temp;
  std::ofstream(temp.path("new.json"))
      << edited("\"model_types\": {", "\"model_types\": {\"mistral_new\": {}, ");
  std::string config;
  {
    Json json = read_json_file(catalogue_entry("mixtral").config);
    json.set("model_type", "mistral_new");
    config = temp.path("config.json");
    std::ofstream(config) << json.dump();
  }
  CHECK(error_text([&] { open_base(config); }).find("unknown model type") != std::string::npos);
  CHECK(open_base(config, {temp.path("new.json")}).spec.model_type == "mistral_new");

  std::ofstream(temp.path("mine.json")) << edited("\"w1\"", "\"first\"");
  const std::string mixtral = catalogue_entry("mixtral").config;
  CHECK(open_base(mixtral, {temp.path("mine.json")}).spec.hub.gate == "first");
  CHECK(open_base(mixtral, {temp.path("mine.json"), temp.path("new.json")}).spec.hub.gate == "w1");
  CHECK(open_base(mixtral).spec.hub.gate == "w1");

  std::ofstream(temp.path("bad.json")) << "{\"family\": 3}";
  CHECK(error_text([&] { open_base(mixtral, {temp.path("bad.json")}); }) ==
        temp.path("bad.json") + ":1:12: /family: found an integer, expected a string");
}

TEST_CASE("A family file's model types and name are nowhere else") {
  std::map<std::string, std::string> owner;  // of a type, or of one under a class
  for (const Family& known : embedded_families()) {
    const std::string& family = known.name;
    const std::string path = MOELORA_SOURCE_DIR "/schemas/models/" + family + ".json";
    CAPTURE(path);
    const Family parsed = parse_family(read_json_file(path), path);
    CHECK(parsed.name == family);
    for (const Variant& variant : parsed.variants) {
      if (variant.only.empty()) CHECK(owner.emplace(variant.model_type, family).second);
      for (const std::string& name : variant.only)
        CHECK(owner.emplace(variant.model_type + " of " + name, family).second);
    }
  }
  CHECK(owner.size() >= 22);
}

}  // namespace moelora
