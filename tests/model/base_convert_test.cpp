#include "lib/model/base_convert.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>

#include "lib/base/error.h"
#include "lib/io/tensor_writer.h"
#include "lib/io/weights.h"
#include "lib/model/base_model.h"
#include "lib/model/model_builder.h"
#include "tests/io/temp_folder.h"
#include "tests/model/base_folder.h"
#include "tests/model/catalogue.h"

namespace moelora {
namespace {

namespace fs = std::filesystem;

const std::string kGptOss = MOELORA_TEST_DATA "/gpt_oss/base";
const std::string kMxfp4 = MOELORA_TEST_DATA "/mxfp4/base";

BaseConversionReport convert(const std::string& in, const std::string& out, ExpertForm to) {
  BaseConversion options;
  options.in = in;
  options.out = out;
  options.to = to;
  options.verify = true;
  options.durable = false;
  return convert_base(options);
}

std::string error_of(const BaseConversion& options) {
  try {
    convert_base(options);
  } catch (const Error& error) {
    return std::string(error.what()) + " | " + error.hint();
  }
  return "no error";
}

bool contains(const std::string& text, const std::string& part) {
  return text.find(part) != std::string::npos;
}

}  // namespace

TEST_CASE("gpt-oss to per-expert Linears and back gives the bytes it began with") {
  const TempFolder temp;
  const auto report = convert(kGptOss, temp.path("split"), ExpertForm::per_expert);
  CHECK(report.from == "batched");
  CHECK(report.expert_layers == 2);
  CHECK(report.verified > 2 * 4 * 6);
  CHECK(report.changes.empty());
  const TensorMap split = tensors_of(temp.path("split"));
  const TensorMap original = tensors_of(kGptOss);
  const std::string stem = "model.layers.1.mlp.experts.";
  const Tensor gate_up = original.at(stem + "gate_up_proj");  // [E, H, 2I] interleaved
  const Tensor gate = split.at(stem + "3.gate_proj.weight");
  REQUIRE(gate.shape() == Shape{48, 64});
  const Tensor rows = gate_up.select(0, 3).transpose(0, 1).reshape({48, 2, 64});
  CHECK(gate.read() == rows.select(1, 0).read());
  CHECK(split.at(stem + "3.up_proj.weight").read() == rows.select(1, 1).read());
  CHECK(split.at(stem + "3.down_proj.weight").read() ==
        original.at(stem + "down_proj").select(0, 3).transpose(0, 1).read());
  CHECK(split.at(stem + "3.up_proj.bias").read() ==
        original.at(stem + "gate_up_proj_bias").select(0, 3).reshape({48, 2}).select(1, 1).read());
  CHECK(split.count(stem + "gate_up_proj") == 0);

  convert(temp.path("split"), temp.path("fused"), ExpertForm::fused);
  CHECK(difference(original, tensors_of(temp.path("fused"))) == "");
}

TEST_CASE("MXFP4 decodes to the tensors transformers makes of it") {
  const TempFolder temp;
  TensorMap expected =
      open_safetensors(MOELORA_TEST_DATA "/mxfp4/base.dequantized.safetensors").tensors;
  for (const auto& [name, tensor] : tensors_of(kMxfp4)) {
    if (!contains(name, "_blocks") && !contains(name, "_scales")) expected[name] = tensor;
  }
  SUBCASE("at once") {
    const auto report = convert(kMxfp4, temp.path("fused"), ExpertForm::fused);
    CHECK(report.from == "MXFP4");
    CHECK(report.changes == std::vector<std::string>{"decode MXFP4 to BF16 (exact)"});
  }
  SUBCASE("by way of per-expert Linears") {
    convert(kMxfp4, temp.path("split"), ExpertForm::per_expert);
    convert(temp.path("split"), temp.path("fused"), ExpertForm::fused);
  }
  CHECK(difference(expected, tensors_of(temp.path("fused"))) == "");
  const Json config = read_json_file(temp.path("fused/config.json"));
  CHECK(config.find("quantization_config") == nullptr);
  CHECK(config.find("dtype")->as_string() == "bfloat16");
  CHECK(config.find("moelora")->find("experts")->as_string() == "fused");
  CHECK_FALSE(open_base(temp.path("fused")).spec.hub_mxfp4);
}

TEST_CASE("Every family converts from either form to the other and back") {
  std::vector<std::string> configs;
  for (const std::string& family : catalogue_families())
    configs.push_back(catalogue_entry(family).config);
  for (const char* family : {"dbrx", "ernie4_5_vl_moe", "inkling", "inkling2", "jetmoe", "laguna",
                             "lara_mini", "minimax_m3_vl", "sarvam_moe"})
    configs.push_back(later_entry(family).config);
  for (const std::string& config : configs) {
    CAPTURE(config);
    const TempFolder temp;
    for (const Form form : {Form::hub, Form::memory}) {
      const std::string name = form == Form::hub ? "hub" : "memory";
      write_model(temp.path(name), config, form);
      const bool numbered = make_model_spec(read_json_file(config), config).storage(form).numbered;
      const ExpertForm to = numbered ? ExpertForm::fused : ExpertForm::per_expert;
      const ExpertForm back = numbered ? ExpertForm::per_expert : ExpertForm::fused;
      const BaseConversionReport made = convert(temp.path(name), temp.path(name + ".to"), to);
      CHECK(made.verified > 0);
      // Names that transformers knows are those of the hub and its own.
      const bool loads = to == ExpertForm::fused || open_base(temp.path(name)).spec.hub.numbered;
      CHECK(made.notes.empty() == loads);
      convert(temp.path(name + ".to"), temp.path(name + ".back"), back);
      // What is fused again has the storage of the hub, where that is batched.
      const ModelSpec spec = open_base(temp.path(name)).spec;
      if (form == Form::hub || !spec.hub.numbered)
        CHECK(verify_base(tensors_of(temp.path(name)), tensors_of(temp.path(name + ".back")), spec,
                          1, "back") > 0);
      if (form == Form::hub)
        CHECK(difference(tensors_of(temp.path(name)), tensors_of(temp.path(name + ".back"))) == "");
    }
  }
}

TEST_CASE("Experts that are rows of one matrix are cut into Linears, down the other way round") {
  const TempFolder temp;
  write_model(temp.path("rows"), later_entry("dbrx").config, Form::hub);
  const TensorMap rows = tensors_of(temp.path("rows"));
  const std::string stem = "transformer.blocks.1.ffn.experts.";
  REQUIRE(rows.at(stem + "mlp.w2").shape() == Shape{7 * 26, 60});
  convert(temp.path("rows"), temp.path("split"), ExpertForm::per_expert);
  const TensorMap split = tensors_of(temp.path("split"));
  const Tensor gate = split.at(stem + "3.gate_proj.weight");
  REQUIRE(gate.shape() == Shape{26, 60});
  CHECK(gate.read() == rows.at(stem + "mlp.w1").slice(0, 3 * 26, 26).read());
  CHECK(split.at(stem + "3.up_proj.weight").read() ==
        rows.at(stem + "mlp.v1").slice(0, 3 * 26, 26).read());
  const Tensor down = split.at(stem + "6.down_proj.weight");
  REQUIRE(down.shape() == Shape{60, 26});
  CHECK(down.read() == rows.at(stem + "mlp.w2").slice(0, 6 * 26, 26).transpose(0, 1).read());
  CHECK(split.count(stem + "mlp.w1") == 0);
}

TEST_CASE(
    "Experts that are rows of one matrix are verified, and a matrix of another size refused") {
  const TempFolder temp;
  const CatalogueEntry entry = later_entry("dbrx");
  write_model(temp.path("rows"), entry.config, Form::hub);
  convert(temp.path("rows"), temp.path("split"), ExpertForm::per_expert);
  const ModelSpec spec = open_base(temp.path("rows")).spec;
  const TensorMap rows = tensors_of(temp.path("rows"));
  TensorMap split = tensors_of(temp.path("split"));
  CHECK(verify_base(rows, split, spec, 1, "out") > 2 * 7 * 3);
  const std::string stem = "transformer.blocks.0.ffn.experts.";
  split[stem + "2.down_proj.weight"] =
      rows.at(stem + "mlp.w2").slice(0, 2 * 26, 26).reshape({60, 26});
  CHECK_THROWS_AS(verify_base(rows, split, spec, 1, "out"), Error);

  TensorMap cut = rows;
  cut[stem + "mlp.v1"] = rows.at(stem + "mlp.v1").slice(0, 0, 6 * 26);
  std::string error;
  try {
    split_experts(cut, spec, "model");
  } catch (const Error& e) {
    error = e.what();
  }
  CHECK(contains(error, stem + "mlp.v1: has shape [156, 60], the config says [182, 60]"));
}

TEST_CASE("Rows of gate and up that the hub interleaves are halves in memory") {
  const TempFolder temp;
  const CatalogueEntry entry = later_entry("inkling");
  write_model(temp.path("hub"), entry.config, Form::hub);
  const ModelSpec spec = open_base(temp.path("hub")).spec;
  const TensorMap hub = tensors_of(temp.path("hub"));
  const Tensor w13 = hub.at("model.llm.layers.1.mlp.experts.w13_weight");  // [E, g0 u0 g1 .., H]
  REQUIRE(w13.shape() == Shape{7, 44, 60});
  const Tensor gate = w13.reshape({7, 22, 2, 60}).select(2, 0),
               up = w13.reshape({7, 22, 2, 60}).select(2, 1);
  const SplitExperts split = split_experts(hub, spec, "hub");
  REQUIRE(split.experts.size() == 1);
  CHECK(split.experts[0].weights.at(Projection::gate).read() == gate.read());
  CHECK(split.experts[0].weights.at(Projection::up).read() == up.read());

  TensorMap memory = split.rest;
  add_experts(split.experts[0], spec, spec.memory, memory);
  const std::string stem = "model.language_model.layers.1.mlp.experts.";
  const Tensor halves = Tensor::concat(1, std::vector{gate, up});
  CHECK(memory.at(stem + "gate_up_proj").read() == halves.read());
  CHECK(split_experts(memory, spec, "memory").experts.at(0).weights.at(Projection::up).read() ==
        up.read());
  CHECK(verify_base(hub, memory, spec, 1, "memory") > 0);
}

TEST_CASE("Experts that are never run have room in the batched gate and up, and zeros there") {
  const TempFolder temp;
  const CatalogueEntry entry = later_entry("longcat_flash");
  write_model(temp.path("hub"), entry.config, Form::hub);
  const BaseConversionReport fused =
      convert(temp.path("hub"), temp.path("fused"), ExpertForm::fused);
  CHECK(fused.verified > 0);
  CHECK(fused.notes ==
        std::vector<std::string>{
            "the 2 experts of a layer that are never run get zeros for gate and up"});
  const TensorMap hub = tensors_of(temp.path("hub")), made = tensors_of(temp.path("fused"));
  const std::string stem = "model.layers.1.mlp.experts.";
  for (const char* name : {"gate_up_proj", "down_proj"})
    CHECK(made.at(stem + name).shape() == entry.memory.at(stem + name));
  const Tensor gate_up = made.at(stem + "gate_up_proj");
  CHECK(gate_up.select(0, 6).slice(0, 22, 22).read() == hub.at(stem + "6.up_proj.weight").read());
  CHECK(gate_up.slice(0, 7, 2).read() == Tensor::zeros(DType::F32, {2, 44, 60}).read());

  convert(temp.path("fused"), temp.path("back"), ExpertForm::per_expert);
  CHECK(difference(hub, tensors_of(temp.path("back"))) == "");

  // transformers saves gate and up of them under the numbers behind the others.
  TensorMap saved = hub;
  saved[stem + "8.gate_proj.weight"] = hub.at(stem + "6.gate_proj.weight");
  CHECK(split_experts(saved, open_base(temp.path("hub")).spec, "saved")
            .rest.count(stem + "8.gate_proj.weight") == 0);
  saved[stem + "9.gate_proj.weight"] = hub.at(stem + "6.gate_proj.weight");
  CHECK_THROWS_AS(split_experts(saved, open_base(temp.path("hub")).spec, "saved"), Error);
}

// transformers 5 turns the experts of some families when it loads them, and saves them turned.
TEST_CASE("Batched experts under the hub's names are read by the side their shapes tell") {
  const TempFolder temp;
  const std::string config = temp.path("config.json");
  std::ofstream(config) << R"({"model_type": "qwen3_vl_moe_text", "hidden_size": 32,
      "num_hidden_layers": 2, "vocab_size": 40, "num_attention_heads": 4,
      "num_key_value_heads": 2, "head_dim": 8, "num_experts": 4, "num_experts_per_tok": 2,
      "moe_intermediate_size": 12, "intermediate_size": 48})";
  write_model(temp.path("hub"), config, Form::hub);
  convert(temp.path("hub"), temp.path("apart"), ExpertForm::per_expert);
  const ModelSpec spec = open_base(temp.path("hub")).spec;
  TensorMap turned = tensors_of(temp.path("hub"));
  for (auto& [name, tensor] : turned)
    if (name.find(".experts.") != std::string::npos) tensor = tensor.transpose(1, 2);
  const TensorMap apart = tensors_of(temp.path("apart"));
  CHECK(verify_base(turned, apart, spec, 1, "turned") > 0);
  for (const ExpertLayer& layer : split_experts(turned, spec, "turned").experts)
    CHECK(layer.weights.at(Projection::down).shape() ==
          Shape{spec.experts, spec.hidden, spec.intermediate});
}

TEST_CASE("Tensors of any type and shape pass through") {
  const TempFolder temp;
  const auto bytes = [](size_t n) { return std::vector<std::byte>(n, std::byte{0x5A}); };
  const auto tensor = [&](DType dtype, const Shape& shape, size_t n) {
    return Tensor(std::make_shared<MemorySource>(dtype, bytes(n), "memory"), shape);
  };
  write_model(temp.path("in"), catalogue_entry("mixtral").config, Form::hub,
              {{"vision.empty", Tensor::zeros(DType::F32, {0, 4})},
               {"vision.scalar", tensor(DType::I64, {}, 8)},
               {"vision.fp8", tensor(DType::F8_E4M3, {3, 5}, 15)},
               {"vision.flags", tensor(DType::BOOL, {7}, 7)}});
  convert(temp.path("in"), temp.path("out"), ExpertForm::fused);
  CHECK(tensors_of(temp.path("out")).at("vision.fp8").read() == bytes(15));
  CHECK(tensors_of(temp.path("out")).at("vision.empty").shape() == Shape{0, 4});
}

TEST_CASE("The rest of the folder goes along, other weights do not") {
  const TempFolder temp;
  fs::copy(kMxfp4, temp.path("in"));
  fs::permissions(temp.path("in"), fs::perms::owner_all);
  std::ofstream(temp.path("in/tokenizer.json")) << "{}";
  std::ofstream(temp.path("in/pytorch_model.bin")) << "old";
  fs::create_directory(temp.path("in/original"));
  const auto report = convert(temp.path("in"), temp.path("out"), ExpertForm::per_expert);
  CHECK(fs::exists(temp.path("out/tokenizer.json")));
  CHECK_FALSE(fs::exists(temp.path("out/pytorch_model.bin")));
  CHECK(report.left_out == std::vector<std::string>{"original", "pytorch_model.bin"});
  CHECK(report.files ==
        std::vector<std::string>{"model.safetensors", "tokenizer.json", "config.json"});
}

TEST_CASE("Shards, a dry run, a cut of layers and a cast to BF16") {
  const TempFolder temp;
  BaseConversion options;
  options.in = kMxfp4;
  options.out = temp.path("out");
  options.durable = false;
  options.verify = true;
  SUBCASE("shards hold the same tensors") {
    options.max_shard_size = 100'000;
    CHECK(convert_base(options).files.size() > 3);
    const TensorMap sharded = tensors_of(options.out);
    convert(kMxfp4, temp.path("whole"), ExpertForm::per_expert);
    CHECK(difference(tensors_of(temp.path("whole")), sharded) == "");
  }
  SUBCASE("a dry run reports and writes nothing") {
    options.dry_run = true;
    const auto report = convert_base(options);
    CHECK(report.tensors == 77);
    CHECK(report.bytes > 100'000);
    CHECK(temp.names().empty());
  }
  SUBCASE("a cut holds its layers and what is in none") {
    options.layers = {1, 1};
    convert_base(options);
    const TensorMap cut = tensors_of(options.out);
    CHECK(cut.count("model.layers.1.mlp.experts.0.gate_proj.weight") == 1);
    CHECK(cut.count("model.layers.0.input_layernorm.weight") == 0);
    CHECK(cut.count("model.layers.0.mlp.experts.0.gate_proj.weight") == 0);
    CHECK(cut.count("model.embed_tokens.weight") == 1);
  }
  SUBCASE("layers that are not there are refused") {
    options.layers = {1, 2};
    CHECK(contains(error_of(options), "--layers: 1-2 is not a range of the model's layers 0-1"));
  }
  SUBCASE("a cast leaves correction biases alone") {
    const std::string bias = "model.layers.1.mlp.gate.e_score_correction_bias";
    write_model(temp.path("f32"), catalogue_entry("deepseek_v3").config, Form::hub,
                {{bias, Tensor::zeros(DType::F32, {8})}});
    options.in = temp.path("f32");
    options.to = ExpertForm::fused;
    options.to_bf16 = true;
    CHECK(convert_base(options).changes == std::vector<std::string>{"cast F32 to BF16"});
    const TensorMap cast = tensors_of(options.out);
    CHECK(cast.at(bias).dtype() == DType::F32);
    CHECK(cast.at("model.layers.1.mlp.experts.gate_up_proj").dtype() == DType::BF16);
    CHECK(read_json_file(options.out + "/config.json").find("dtype")->as_string() == "bfloat16");
  }
}

TEST_CASE("A base that cannot be converted says why and leaves nothing behind") {
  const TempFolder temp;
  const std::string config = catalogue_entry("gpt_oss").config;
  const std::string experts = "model.layers.0.mlp.experts.";
  BaseConversion options;
  options.in = temp.path("in");
  options.out = temp.path("out");
  options.durable = false;
  SUBCASE("sound") {
    write_model(options.in, config, Form::hub);
    CHECK(error_of(options) == "no error");
  }
  SUBCASE("already in this form") {
    write_model(options.in, config, Form::hub);
    options.to = ExpertForm::fused;
    CHECK(
        contains(error_of(options), "the experts are fused already: there is nothing to convert"));
  }
  SUBCASE("no weights at hand") {
    options.in = "openai/gpt-oss-20b";
    CHECK(contains(
        error_of(options),
        "found built-in config of openai/gpt-oss-20b only, expected a folder with weights"));
  }
  SUBCASE("an unknown expert tensor") {
    write_model(options.in, config, Form::hub,
                {{experts + "gate_up_proj_scale", Tensor::zeros(DType::F32, {4})}});
    CHECK(contains(error_of(options),
                   experts + "gate_up_proj_scale: belongs to the experts of layer 0"));
  }
  SUBCASE("another number of experts than the config says") {
    write_model(options.in, config, Form::hub);
    Json changed = read_json_file(options.in + "/config.json");
    changed.set("num_local_experts", 3);
    std::ofstream(options.in + "/config.json") << changed.dump();
    CHECK(contains(error_of(options),
                   experts + "gate_up_proj: has shape [4, 64, 96], the config says [3, 64, 96]"));
  }
  SUBCASE("blocks without scales") {
    fs::create_directory(options.in);
    TensorMap tensors = tensors_of(kMxfp4);
    tensors.erase(experts + "down_proj_scales");
    fs::remove(options.in);
    OutputFolder out(options.in, {}, {false, false});
    write_weights(out, "model", tensors, {});
    out.commit("config.json", read_json_file(kMxfp4 + "/config.json").dump());
    CHECK(contains(error_of(options), "the tensor " + experts + "down_proj_scales is missing"));
  }
  SUBCASE("an output that is there already") {
    write_model(options.in, config, Form::hub);
    fs::create_directory(options.out);
    CHECK(error_of(options) != "no error");
    options.force = true;
    CHECK(error_of(options) == "no error");
  }
  if (!fs::exists(temp.path("out/config.json")))
    CHECK_FALSE(fs::exists(temp.path("out/model.safetensors")));
}

TEST_CASE("Verification finds a wrong byte, a swapped half and a missing tensor") {
  const ModelSpec spec = open_base(kGptOss).spec;
  const TensorMap in = tensors_of(kGptOss);
  SplitExperts split = split_experts(in, spec, "in");
  const auto verify = [&] {
    TensorMap out = split.rest;
    for (const ExpertLayer& experts : split.experts)
      add_experts(experts, spec, per_expert_storage(spec), out);
    return verify_base(in, out, spec, 2, "out");
  };
  CHECK(verify() > 0);
  SUBCASE("gate and up swapped") {
    auto& weights = split.experts[1].weights;
    std::swap(weights.at(Projection::gate), weights.at(Projection::up));
    CHECK_THROWS_AS(verify(), Error);
  }
  SUBCASE("biases of two experts swapped") {
    Tensor& bias = split.experts[0].biases.at(Projection::down);
    const Tensor parts[] = {bias.slice(0, 1, 1), bias.slice(0, 0, 1), bias.slice(0, 2, 2)};
    bias = Tensor::concat(0, parts);
    CHECK_THROWS_AS(verify(), Error);
  }
  SUBCASE("another norm") {
    split.rest["model.norm.weight"] = Tensor::zeros(DType::BF16, {64});
    CHECK_THROWS_AS(verify(), Error);
  }
  SUBCASE("a tensor left out") {
    split.rest.erase("model.layers.0.self_attn.sinks");
    CHECK_THROWS_AS(verify(), Error);
  }
  SUBCASE("experts left out") {
    split.experts.pop_back();
    CHECK_THROWS_AS(verify(), Error);
  }
}

}  // namespace moelora
