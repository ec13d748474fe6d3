#include "lib/adapter/inspect.h"

#include <doctest/doctest.h>

#include <fstream>

#include "tests/adapter/made_adapter.h"
#include "tests/io/error_text.h"
#include "tests/io/temp_folder.h"

using namespace moelora;
using namespace moelora::test;

namespace {

const std::string kLayers = "model.layers.";

// An adapter written to a folder of its own.
class Written {
 public:
  explicit Written(const MadeAdapter& made) { made.write(folder_.path("a")); }

  std::string text(const LoadOptions& options = {}) const {
    return inspection_text(inspect(folder_.path("a"), options));
  }
  Json json(const LoadOptions& options = {}) const {
    return parse_json(inspection_json(inspect(folder_.path("a"), options)), "inspect");
  }
  const std::string& path() const { return path_; }

 private:
  TempFolder folder_;
  std::string path_ = folder_.path("a");
};

MadeAdapter mixed() {
  MadeAdapter made(
      R"({"r": 2, "lora_alpha": 4, "peft_version": "0.21.0", "rank_pattern": {"lm_head": 3}})");
  for (const char* layer : {"0", "1", "3"})
    for (const char* e : {"0", "1"})
      made.pair(kLayers + layer + ".mlp.experts." + e + ".gate_proj", {2, 4}, {6, 2});
  for (const char* layer : {"0", "1"})
    made.pair(kLayers + layer + ".self_attn.q_proj", {2, 4}, {8, 2});
  return made.pair("lm_head", {3, 4}, {9, 3}).add("base_model.model.score.weight", {2, 4});
}

std::string after(const std::string& text, const std::string& line) {
  const size_t at = text.find(line);
  return at == std::string::npos ? "" : text.substr(at, text.find('\n', at) - at);
}

}  // namespace

TEST_CASE("an adapter is its layout, ranks and scales, and a row for pairs that are alike") {
  const Written written(mixed());
  CHECK(written.text() ==
        written.path() +
            ": LoRA adapter, layout peft-linear, 19 tensors, 860 bytes in 1 file\n"
            "r 2, lora_alpha 4, PEFT 0.21.0, 2 experts\n"
            "\n"
            "module                 layers  layout       pairs  rank  alpha  scale               "
            "dtype  A       B\n"
            "mlp.experts.gate_proj  0-1,3   peft-linear  6      2     4      2                   "
            "F32    [2, 4]  [6, 2]\n"
            "self_attn.q_proj       0-1     dense        2      2     4      2                   "
            "F32    [2, 4]  [8, 2]\n"
            "lm_head                -       dense        1      3     4      1.3333333333333333  "
            "F32    [3, 4]  [9, 3]\n"
            "other: score.weight\n");
}

TEST_CASE("JSON says the same") {
  const Json json = Written(mixed()).json();
  CHECK(json.find("schema")->as_string() == "moelora.inspect/1");
  CHECK(json.find("kind")->as_string() == "adapter");
  CHECK(json.find("layout")->as_string() == "peft-linear");
  CHECK(json.find("tensors")->as_int() == 19);
  CHECK(json.find("bytes")->as_int() == 860);
  CHECK(json.find("experts")->as_int() == 2);
  CHECK(json.find("base")->is(Json::Kind::null));
  CHECK(json.find("ambiguous")->is(Json::Kind::null));
  CHECK(json.find("extras")->dump(-1) == R"([{"name": "score.weight", "kind": "other"}])");
  const std::vector<Json>& modules = json.find("modules")->items();
  REQUIRE(modules.size() == 3);
  CHECK(modules[0].find("module")->as_string() == "mlp.experts.gate_proj");
  CHECK(modules[0].find("layers")->as_string() == "0-1,3");
  CHECK(modules[0].find("pairs")->as_int() == 6);
  CHECK(modules[0].find("a")->dump(-1) == "[2, 4]");
  CHECK(!modules[0].find("shared_a")->as_bool());
}

TEST_CASE("shared factors and stacked pairs show as such") {
  MadeAdapter shared;
  shared.pair(kLayers + "0.mlp.experts.w1", {1, 2, 4}, {5, 6, 2});
  const Json modules = *Written(shared).json().find("modules");
  REQUIRE(modules.items().size() == 1);
  CHECK(modules.items()[0].find("shared_a")->as_bool());
  CHECK(!modules.items()[0].find("shared_b")->as_bool());
  CHECK(modules.items()[0].find("pairs")->as_int() == 5);

  MadeAdapter params(R"({"r": 2, "lora_alpha": 4, "lora_B_layout": "grouped_by_expert"})");
  params.pair(kLayers + "0.mlp.experts.base_layer", {6, 4}, {8, 6})
      .pair(kLayers + "0.mlp.experts", {6, 4}, {4, 6});
  const Json json = Written(params).json();
  CHECK(json.find("layout")->as_string() == "peft-params");
  CHECK(json.find("b_order")->as_string() == "expert-major");
  CHECK(json.find("b_order_from")->as_string() == "marked");
  CHECK(json.find("roles")->as_string() == "natural");
  CHECK(json.find("experts")->as_int() == 3);
}

TEST_CASE("an adapter that cannot be interpreted is described with the reason") {
  SUBCASE("two layouts") {
    const Written written(mixed().pair(kLayers + "0.mlp.experts.up_proj", {4, 2, 4}, {4, 6, 2}));
    CHECK(written.json().find("layout")->as_string() == "unknown");
    CHECK(after(written.text(), "ambiguous: ").ends_with("the file mixes expert layouts"));
    CHECK(after(written.text(), "hint: ") ==
          "hint: save the adapter in one layout, or split the file");
  }
  SUBCASE("roles that shapes do not decide") {
    MadeAdapter made(R"({"r": 2, "lora_alpha": 4, "target_parameters": ["experts.down_proj"]})");
    made.pair(kLayers + "0.mlp.experts", {6, 4}, {8, 6});
    const Written written(made);
    const Json json = written.json();
    CHECK(json.find("layout")->as_string() == "peft-params");
    CHECK(
        json.find("ambiguous")->as_string().find("lora_A may lie on the input or on the output") !=
        std::string::npos);
    CHECK(json.find("hint")->as_string().starts_with(
        "name the base model with --base, or say --roles natural"));
    CHECK(json.find("modules")->items().empty());
    LoadOptions natural;
    natural.read.roles = Roles::natural;
    CHECK(written.json(natural).find("ambiguous")->is(Json::Kind::null));
  }
  SUBCASE("an incomplete pair") {
    const Written written(mixed().remove(b_name("lm_head")));
    CHECK(after(written.text(), "ambiguous: ") ==
          "ambiguous: base_model.model.lm_head.lora_A.weight: has no lora_B beside it");
  }
}

TEST_CASE("no name of a file reaches the terminal as it is") {
  const auto clean = [](const std::string& text) {
    for (const char c : text)
      if (static_cast<unsigned char>(c) < 0x20 && c != '\n') return false;
    return true;
  };
  SUBCASE("in an extra") { CHECK(clean(Written(mixed().add("a\x1b[31mred", {2})).text())); }
  SUBCASE("in a module") {
    CHECK(clean(Written(mixed().pair("a\x1b[31mred", {2, 4}, {4, 2})).text()));
  }
  SUBCASE("in what is ambiguous") {
    CHECK(
        clean(Written(mixed().pair(kLayers + "0.mlp.experts.\x1b[31mred", {2, 4}, {4, 2})).text()));
  }
  SUBCASE("in the config") {
    MadeAdapter made(
        R"({"r": 2, "lora_alpha": 4, "peft_version": "\u001b[31m", "init_lora_weights": "pissa\u001b[31m"})");
    CHECK(clean(Written(made.pair("lm_head", {2, 4}, {9, 2})).text()));
  }
}

TEST_CASE("what is absent or malformed is an error") {
  const TempFolder folder;
  CHECK(!error_text([&] { inspect(folder.path("none")); }).empty());
  CHECK(!error_text([&] { inspect(folder.path()); }).empty());
  mixed().write(folder.path("a"));
  CHECK(error_text([&] { inspect(folder.path("a")); }).empty());
  std::ofstream(folder.path("a/adapter_config.json")) << "{";
  CHECK(!error_text([&] { inspect(folder.path("a")); }).empty());
}

TEST_CASE("a weights file that is not an adapter's is shown as its tensors") {
  const TempFolder folder;
  mixed().write(folder.path("a"));
  std::filesystem::remove(folder.path("a/adapter_config.json"));
  const Json json =
      parse_json(inspection_json(inspect(folder.path("a/adapter_model.safetensors"))), "");
  CHECK(json.find("kind")->as_string() == "tensors");
  CHECK(json.find("tensors")->items().size() == 19);
  CHECK(
      json.find("tensors")->items()[0].dump(-1) ==
      R"({"name": "base_model.model.lm_head.lora_A.weight", "dtype": "F32", "shape": [3, 4], "bytes": 48})");
}
