// A base checkpoint converted in parts.

#include <doctest/doctest.h>
#include <fmt/core.h>

#include <filesystem>
#include <fstream>

#include "lib/io/json.h"
#include "lib/model/base_convert.h"
#include "tests/io/error_text.h"
#include "tests/io/temp_folder.h"
#include "tests/model/base_folder.h"

namespace moelora {
namespace {

namespace fs = std::filesystem;

const std::string kMxfp4 = MOELORA_TEST_DATA "/mxfp4/base";

// Five layers, the first without experts; one tensor behind the last layer, one in none.
void write_five_layers(const TempFolder& temp) {
  const std::string config = temp.path("config.json");
  std::ofstream(config) << R"({"model_type": "qwen3_moe", "hidden_size": 16,
      "num_hidden_layers": 5, "vocab_size": 24, "num_attention_heads": 2,
      "num_key_value_heads": 1, "head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2,
      "moe_intermediate_size": 12, "intermediate_size": 20, "mlp_only_layers": [0]})";
  write_model(temp.path("in"), config, Form::hub,
              {{"model.layers.5.eh_proj.weight", Tensor::zeros(DType::F32, {2})},
               {"vision.scale", Tensor::zeros(DType::F32, {3})}});
}

BaseConversion conversion(const TempFolder& temp, const std::string& out) {
  BaseConversion options;
  options.in = temp.path("in");
  options.out = temp.path(out);
  options.to = ExpertForm::fused;
  options.verify = true;
  options.durable = false;
  return options;
}

BaseConversionReport write_whole(const TempFolder& temp) {
  return convert_base(conversion(temp, "whole"));
}

BaseConversionReport write_part(const TempFolder& temp, int number, int count) {
  BaseConversion options = conversion(temp, fmt::format("{}of{}", number, count));
  options.part = {number, count};
  return convert_base(options);
}

std::string refusal(const TempFolder& temp, int number, int count) {
  return error_text([&] { write_part(temp, number, count); });
}

Json read_json(const std::string& path) { return read_json_file(InputPath(path)); }

}  // namespace

TEST_CASE("All parts together hold the tensors of the conversion in one, each once") {
  const TempFolder temp;
  write_five_layers(temp);
  const BaseConversionReport whole = write_whole(temp);
  for (const int count : {1, 2, 3, 5}) {
    CAPTURE(count);
    TensorMap together;
    int64_t tensors = 0, layers = 0;
    for (int number = 1; number <= count; ++number) {
      const BaseConversionReport made = write_part(temp, number, count);
      tensors += made.tensors;
      layers += made.expert_layers;
      CHECK(made.verified > 0);
      CHECK(made.from == "per expert");
      together.merge(tensors_of(temp.path(fmt::format("{}of{}", number, count))));
    }
    CHECK(tensors == whole.tensors);
    CHECK(layers == whole.expert_layers);
    CHECK(difference(tensors_of(temp.path("whole")), together) == "");
  }
}

TEST_CASE("Neighbors share a part; the first has what is in no layer, the last what is behind") {
  const TempFolder temp;
  write_five_layers(temp);
  write_part(temp, 1, 2);
  write_part(temp, 2, 2);
  const TensorMap first = tensors_of(temp.path("1of2")), last = tensors_of(temp.path("2of2"));
  for (const char* name :
       {"model.embed_tokens.weight", "lm_head.weight", "vision.scale",
        "model.layers.0.mlp.up_proj.weight", "model.layers.1.mlp.experts.gate_up_proj"})
    CHECK(first.count(name) == 1);
  for (const char* name :
       {"model.layers.2.mlp.experts.down_proj", "model.layers.3.self_attn.q_proj.weight",
        "model.layers.4.mlp.experts.gate_up_proj", "model.layers.5.eh_proj.weight"})
    CHECK(last.count(name) == 1);
  CHECK(last.count("model.embed_tokens.weight") == 0);
  CHECK(first.count("model.layers.2.mlp.experts.down_proj") == 0);
  CHECK(fs::exists(temp.path("1of2/tokenizer.json")));
  CHECK_FALSE(fs::exists(temp.path("2of2/tokenizer.json")));
}

TEST_CASE("conversion.json of a part lists what is in it") {
  const TempFolder temp;
  write_five_layers(temp);
  std::ofstream(temp.path("in/conversion.json")) << R"({"schema": "of the input"})";
  const BaseConversionReport made = write_part(temp, 2, 3);
  const Json report = read_json(temp.path("2of3/conversion.json"));
  CHECK(*report.find("part") == Json::array({2, 3}));
  CHECK(report.find("from")->as_string() == "per expert");
  CHECK(report.find("to")->as_string() == "fused");
  std::vector<std::string> listed, held, files;
  for (const auto& [name, about] : report.find("tensors")->members()) listed.push_back(name);
  for (const auto& [name, tensor] : tensors_of(temp.path("2of3"))) held.push_back(name);
  for (const Json& file : report.find("files")->items()) files.push_back(file.as_string());
  CHECK(listed == held);
  CHECK(files == made.files);
  for (const std::string& file : files) CHECK(fs::exists(temp.path("2of3/" + file)));

  write_whole(temp);
  CHECK_FALSE(fs::exists(temp.path("whole/conversion.json")));
}

TEST_CASE("config.json of a part is the whole's, and says which part it is") {
  const TempFolder temp;
  fs::copy(kMxfp4, temp.path("in"));
  fs::permissions(temp.path("in"), fs::perms::owner_all);
  write_whole(temp);
  Json whole = read_json(temp.path("whole/config.json"));
  whole.erase("moelora");
  for (const int number : {1, 2}) {
    write_part(temp, number, 2);
    Json part = read_json(temp.path(fmt::format("{}of2/config.json", number)));
    CHECK(*part.find("moelora")->find("part") == Json::array({number, 2}));
    part.erase("moelora");
    CHECK(part == whole);
  }
}

TEST_CASE("Parts that are not there are refused, and nothing is written") {
  const TempFolder temp;
  write_five_layers(temp);
  const std::string none = ": there is no such part: of N parts the first is 1/N and the last N/N";
  CHECK(refusal(temp, 0, 2) == "--part 0/2" + none);
  CHECK(refusal(temp, 3, 2) == "--part 3/2" + none);
  CHECK(refusal(temp, 0, 0) == "--part 0/0" + none);
  CHECK(refusal(temp, 1, 6) == "--part 1/6: the model has 5 layers, and a part has one at least");
  BaseConversion both = conversion(temp, "both");
  both.part = {1, 2};
  both.layers = {0, 1};
  CHECK(error_text([&] { convert_base(both); }) ==
        "--part: shares out all layers, not some of them");
  BaseConversion same = conversion(temp, "same");
  same.part = {2, 2};
  same.to = ExpertForm::per_expert;
  CHECK(error_text([&] { convert_base(same); }).find("the experts are per-expert already") !=
        std::string::npos);
  CHECK(temp.names() == std::vector<std::string>{"config.json", "in"});
}

}  // namespace moelora
