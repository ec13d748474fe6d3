// Files that the ranks of a training wrote apart are one adapter, or are refused.

#include "lib/adapter/foreign/shard_set.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>

#include "lib/adapter/dialect.h"
#include "lib/adapter/foreign/rank_files.h"
#include "lib/io/file.h"
#include "lib/model/base_model.h"
#include "tests/adapter/made_adapter.h"
#include "tests/io/error_text.h"
#include "tests/io/temp_folder.h"

using namespace moelora;
using namespace moelora::test;

namespace {

void touch(const std::string& path, const std::string& text = "") { std::ofstream(path) << text; }

std::string opening(const TempFolder& temp) {
  return error_text([&] { open_shard_set(temp.path(), files_in(temp.path())); }, temp.path());
}

struct Art {
  TempFolder temp;

  // Tensors and what the manifest says of each, in its order.
  void shard(const std::string& suffix, const MadeAdapter& made, const std::string& manifest) {
    made.write(temp.path("made"));
    std::filesystem::rename(temp.path("made/adapter_model.safetensors"),
                            temp.path("adapter_model-" + suffix + ".safetensors"));
    touch(temp.path("adapter_manifest-" + suffix + ".json"), manifest);
    std::filesystem::remove_all(temp.path("made"));
  }

  Weights open() const { return open_shard_set(temp.path(), files_in(temp.path()))->weights; }
  std::string error() const {
    std::string text = opening(temp);
    for (size_t at; (at = text.find(temp.path())) != std::string::npos;)
      text.replace(at, temp.path().size(), "X");
    return text;
  }
};

std::string entry(int rank, const std::string& more, int ranks = 2) {
  return R"({"b": {"sharded": true, "shard_world_size": )" + std::to_string(ranks) +
         R"(, "shard_rank": )" + std::to_string(rank) + more + "}}";
}

constexpr const char* kUniform = R"(, "export_shard_dim": 0, "export_shard_strategy": "uniform")";
constexpr const char* kComponents =
    R"(, "export_shard_dim": 0, "export_shard_strategy": "componentwise", "component_sizes": [2, 4])";

MadeAdapter made(const Shape& shape = {3, 1}) {
  MadeAdapter out;
  return out.add("b", shape);
}

// Of two files of one tensor "b" each.
std::string of_two(const std::string& first, const std::string& second,
                   const Shape& shape = {3, 1}) {
  Art art;
  art.shard("01-of-02", made(), first);
  art.shard("02-of-02", made(shape), second);
  return art.error();
}

}  // namespace

TEST_CASE("names of rank files") {
  struct Row {
    const char* name;
    int64_t tensor, pipeline, expert;
    bool open;
  };
  for (const Row& row :
       std::initializer_list<Row>{// verl utils/megatron_peft_utils.py _get_rank_checkpoint_path
                                  {"mp_rank_01_adapter.pt", 1, 0, 0, false},
                                  {"mp_rank_01_002_adapter.pt", 1, 0, 2, true},
                                  {"mp_rank_01_002_003_adapter.pt", 1, 2, 3, false},
                                  // miles backends/megatron_utils/lora_utils.py
                                  {"adapter_megatron_tp3_pp1.pt", 3, 1, 0, false},
                                  {"adapter_megatron_tp3_pp0_ep12.pt", 3, 0, 12, false},
                                  {"adapter_megatron_rank0.pt", 0, 0, 0, false}}) {
    CAPTURE(row.name);
    const auto rank = parse_rank_file(row.name);
    REQUIRE(rank);
    CHECK(rank->tensor == row.tensor);
    CHECK(rank->pipeline == row.pipeline);
    CHECK(rank->expert == row.expert);
    CHECK(rank->may_be_pipeline == row.open);
  }
  for (const char* name :
       {"mp_rank_adapter.pt", "mp_rank_00_000_000_000_adapter.pt", "mp_rank_00.pt",
        "adapter_megatron_tp0.pt", "adapter_megatron_tp0_pp0_ep.pt", "adapter_model.pt",
        "adapter_megatron_rank.pt", "training_state_rank0.pt"}) {
    CAPTURE(name);
    CHECK(!parse_rank_file(name));
  }
}

TEST_CASE("a set of rank files that is not whole is refused before it is opened") {
  const TempFolder temp;
  const auto refusal = [&](std::initializer_list<const char*> names) {
    for (const std::string& old : files_in(temp.path())) std::filesystem::remove(temp.path(old));
    for (const char* name : names) touch(temp.path(name));
    const std::string text =
        error_text([&] { open_shard_set(temp.path(), files_in(temp.path())); });
    return text.substr(temp.path().size());
  };
  CHECK(refusal({"mp_rank_00_adapter.pt", "mp_rank_02_adapter.pt"}) ==
        ": lacks the file of tensor-parallel rank 1: it has mp_rank_00_adapter.pt, "
        "mp_rank_02_adapter.pt");
  CHECK(refusal({"adapter_megatron_tp0_pp0_ep1.pt"}) ==
        ": lacks the file of expert-parallel rank 0: it has adapter_megatron_tp0_pp0_ep1.pt");
  CHECK(refusal({"adapter_megatron_tp0_pp0.pt", "adapter_megatron_tp0_pp1.pt"}) ==
        "/adapter_megatron_tp0_pp1.pt: is of pipeline stage 1, and a stage numbers its layers from "
        "0: which layers of the model they are is not known");
  CHECK(refusal({"mp_rank_00_adapter.pt", "mp_rank_0_adapter.pt"}) ==
        "/mp_rank_0_adapter.pt: is of the same rank as mp_rank_00_adapter.pt");
  CHECK(refusal({"adapter_megatron_rank0.pt", "adapter_megatron_rank1.pt"}) ==
        ": holds the files of 2 ranks whose names do not say which part of the adapter each has: "
        "adapter_megatron_rank0.pt, adapter_megatron_rank1.pt");
  touch(temp.path("adapter_model.bin"));  // counts alone
  CHECK(!open_shard_set(temp.path(), files_in(temp.path())));
}

TEST_CASE("one file of a set does not stand for it") {
  const std::string art = "adapter_model-01-of-02.safetensors", rank = "mp_rank_00_000_adapter.pt";
  const auto fault = [](const std::string& file, std::vector<std::string> listing) {
    return error_text([&] { refuse_part_of_set("a", file, listing); });
  };
  const std::vector<std::string> arts = {"adapter_manifest-01-of-02.json", art,
                                         "adapter_model-02-of-02.safetensors"};
  CHECK(fault(art, arts) == "a/" + art + ": is one of 2 files that the ranks of a training wrote");
  CHECK(fault(rank, {rank, "mp_rank_01_001_adapter.pt"}) ==
        "a/" + rank + ": is one of 2 files that the ranks of a training wrote");
  CHECK(fault(rank, {rank}).empty());
  CHECK(fault("other.pt", {rank, "mp_rank_01_001_adapter.pt", "other.pt"}).empty());
  CHECK(fault(art, {art, "adapter_model-02-of-02.safetensors"}).empty());  // huggingface's
}

TEST_CASE("ART's shards are joined as their manifests say") {
  Art art;
  SUBCASE("uniform") {
    art.shard("01-of-02", made(), entry(1, kUniform));
    art.shard("02-of-02", made(), entry(0, kUniform));
    const Tensor b = art.open().tensors.at("b");
    CHECK(b.shape() == Shape{6, 1});
    CHECK(floats(b) == std::vector<float>{1, 2, 3, 1, 2, 3});
  }
  SUBCASE("uniform by the other axis, which old manifests do not say") {
    for (const int rank : {0, 1}) {
      MadeAdapter a;
      a.add("x.lora_A.weight", {2, 1});
      std::string manifest = entry(rank, "");
      manifest.replace(manifest.find("\"b\""), 3, "\"x.lora_A.weight\"");
      art.shard(rank == 0 ? "01-of-02" : "02-of-02", a, manifest);
    }
    CHECK(floats(art.open().tensors.at("x.lora_A.weight")) == std::vector<float>{1, 1, 2, 2});
  }
  SUBCASE("componentwise: [1 of 2; 2 of 4] of each") {
    art.shard("01-of-02", made(), entry(0, kComponents));
    art.shard("02-of-02", made(), entry(1, kComponents));
    CHECK(floats(art.open().tensors.at("b")) == std::vector<float>{1, 1, 2, 3, 2, 3});
  }
  SUBCASE("whole in one of them") {
    art.shard("01-of-02", made(), R"({"b": {"sharded": false, "shard_world_size": 1}})");
    art.shard("02-of-02", MadeAdapter(), "{}");
    CHECK(art.open().tensors.at("b").shape() == Shape{3, 1});
    CHECK(art.open().files.size() == 2);
  }
}

TEST_CASE("shards of ART that do not fit together are refused") {
  const std::string whole = R"({"b": {"sharded": false}})";
  CHECK(of_two(entry(0, kUniform), entry(0, kUniform)) ==
        "X: b: is part 0 of 2 both in adapter_model-01-of-02.safetensors and in "
        "adapter_model-02-of-02.safetensors");
  CHECK(of_two(entry(0, kUniform, 3), entry(1, kUniform, 3)) == "X: b: lacks part 2 of 3");
  CHECK(of_two(entry(0, kUniform), entry(2, kUniform)) ==
        "X: b: is part 2 of 2 in adapter_model-02-of-02.safetensors, and parts count from 0");
  CHECK(of_two(entry(0, kUniform), entry(1, kUniform), {2, 1}) ==
        "X: b: is F32 [3, 1] in adapter_model-01-of-02.safetensors and F32 [2, 1] in "
        "adapter_model-02-of-02.safetensors");
  CHECK(of_two(entry(0, kUniform), entry(1, kComponents)) ==
        "X: b: is cut in another way in adapter_model-02-of-02.safetensors than in "
        "adapter_model-01-of-02.safetensors");
  CHECK(of_two(whole, whole) ==
        "X: b: is whole in adapter_model-01-of-02.safetensors and again in "
        "adapter_model-02-of-02.safetensors");
  const auto components = [](const char* sizes) {
    return std::string(R"(, "export_shard_strategy": "componentwise", "component_sizes": )") +
           sizes;
  };
  CHECK(of_two(entry(0, components("[3, 3]")), entry(1, components("[3, 3]"))) ==
        "X: b: has a component of 3 rows, which 2 ranks do not divide");
  CHECK(of_two(entry(0, components("[2, 2]")), entry(1, components("[2, 2]"))) ==
        "X: b: is [3, 1] in each file, and its components are 2 of each");
  const std::string large = components("[9223372036854775806, 9223372036854775806, 8, 2]");
  CHECK(of_two(entry(0, large), entry(1, large)) ==
        "X: b: is [3, 1] in each file, and its components are 9223372036854775811 of each");
  CHECK(of_two(entry(0, components("[]")), whole) ==
        "adapter_manifest-01-of-02.json: b: is cut componentwise, and no component_sizes say "
        "into what");
  CHECK(of_two(entry(0, R"(, "export_shard_strategy": "striped")"), whole) ==
        "adapter_manifest-01-of-02.json: b: is cut by the strategy \"striped\", expected uniform "
        "or componentwise");
  CHECK(of_two(entry(0, R"(, "export_shard_dim": 2)"), whole) ==
        "adapter_manifest-01-of-02.json: b: is cut along axis 2, and the tensor is [3, 1]");
  CHECK(of_two("{}", whole) ==
        "adapter_model-01-of-02.safetensors: b: is not in adapter_manifest-01-of-02.json");
  CHECK(of_two(R"({"c": {"sharded": false}})", whole) ==
        "adapter_manifest-01-of-02.json: c: is not in adapter_model-01-of-02.safetensors");
  CHECK(of_two("[]", whole) ==
        "adapter_manifest-01-of-02.json: is an array, expected an object of tensors");
  CHECK(of_two(R"({"b": 1})", whole) ==
        "adapter_manifest-01-of-02.json: b: is an integer, expected an object");
  CHECK(of_two(R"({"b": {}})", whole) ==
        "adapter_manifest-01-of-02.json: b: does not say \"sharded\"");
  CHECK(of_two(R"({"b": {"sharded": true, "shard_world_size": 2}})", whole) ==
        "adapter_manifest-01-of-02.json: b: does not say \"shard_rank\"");
}

TEST_CASE("a missing file of ART's is named") {
  Art art;
  art.shard("02-of-03", made(), R"({"b": {"sharded": false}})");
  CHECK(art.error() == "X: lacks shard 1 of 3");
  art.shard("01-of-03", MadeAdapter(), "{}");
  CHECK(art.error() == "X: lacks shard 3 of 3");
  art.shard("03-of-03", MadeAdapter(), "{}");
  CHECK(art.error().empty());
  std::filesystem::remove(art.temp.path("adapter_manifest-03-of-03.json"));
  CHECK(art.error() ==
        "adapter_model-03-of-03.safetensors: has no adapter_manifest-03-of-03.json "
        "beside it, which says how its tensors are cut");
  art.shard("01-of-02", MadeAdapter(), "{}");
  CHECK(art.error() == "X: holds shards of 2 files and of 3");
}

TEST_CASE("ART joins gate and up of an expert as halves, and changes some families") {
  const auto read = [](const std::string& base, bool named = true) {
    const ModelSpec spec = open_base(std::string(MOELORA_TEST_DATA "/") + base).spec;
    const std::string expert = "base_model.model.model.layers.1.mlp.experts.3.gate_up_proj.lora_";
    MadeAdapter made;
    made.add(expert + "A.weight", {2, 64}).add(expert + "B.weight", {4, 2});
    const std::string where;
    Translation out;
    dialects::art.read({made.tensors(), {}, where, named ? &spec : nullptr, ShardSet::art}, out);
    return out.tensors;
  };
  const TensorMap out = read("qwen3_moe/base");
  const std::string expert = "base_model.model.model.layers.1.mlp.experts.3.";
  CHECK(out.size() == 4);
  CHECK(floats(out.at(expert + "gate_proj.lora_B.weight")) ==
        std::vector<float>{129, 130, 131, 132});
  CHECK(floats(out.at(expert + "up_proj.lora_B.weight")) == std::vector<float>{133, 134, 135, 136});
  CHECK(error_text([&] { read("family_goldens/qwen3_next/base"); }) ==
        expert +
            "gate_up_proj.lora_A.weight: is of ART's own shards, whose factors of "
            "qwen3_next are not PEFT's");
  CHECK(error_text([&] { read("qwen3_moe/base", false); }) ==
        expert +
            "gate_up_proj.lora_A.weight: is of ART's own shards, whose factors are not "
            "PEFT's in some families");
}

TEST_CASE("shards of ART are of its dialect, whatever their names; names are not") {
  Art art;
  const std::string q = "base_model.model.model.layers.0.self_attn.q_proj.lora_";
  MadeAdapter made;
  made.add(q + "A.weight", {2, 64}).add(q + "B.weight", {64, 2}).add("scores@art", {2, 2});
  std::string manifest;
  for (const auto& entry : made.tensors())
    manifest += (manifest.empty() ? "{\"" : ", \"") + entry.first + R"(": {"sharded": false})";
  art.shard("01-of-01", made, manifest + "}");
  touch(art.temp.path("adapter_config.json"), made.config());
  const AdapterFiles shards = open_adapter(art.temp.path());
  CHECK(shards.dialect == &dialects::art);
  CHECK(shards.tensors.count("scores@art") == 1);

  made.write(art.temp.path("whole"));
  const AdapterFiles whole = open_adapter(art.temp.path("whole"));
  CHECK(whole.dialect == nullptr);
  CHECK(whole.tensors.count("scores@art") == 1);
}
