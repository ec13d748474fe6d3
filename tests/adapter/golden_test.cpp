// The proof: whatever an adapter of a real peer is converted to, the deltas it means are the fp64
// answers of that peer. The written folders are decoded by tests/adapter/decode.cpp, not by
// lib/adapter.

#include <doctest/doctest.h>

#include <algorithm>
#include <filesystem>

#include "lib/adapter/convert.h"
#include "lib/base/error.h"
#include "lib/io/weights.h"
#include "lib/model/base_model.h"
#include "tests/adapter/goldens.h"
#include "tests/adapter/round_trip.h"

using namespace moelora;
using namespace moelora::test;

namespace {

namespace fs = std::filesystem;

const std::string kData = MOELORA_TEST_DATA;

}  // namespace

TEST_CASE("every golden adapter means the same in every layout as PEFT computed in fp64") {
  int conversions = 0;
  for (const Golden& g : goldens()) {
    const ModelSpec spec = open_base(g.base()).spec;
    const auto expected = golden_answer(g, spec);
    CAPTURE(g.family);
    CAPTURE(g.adapter);
    REQUIRE(!expected.empty());
    for (const Layout* layout : all_layouts()) {
      if (layout->id == "shared-outer" && !g.shared_outer) continue;
      for (const Roles roles : {Roles::natural, Roles::swapped})
        for (const BOrder order : {BOrder::rank_major, BOrder::expert_major}) {
          const bool params = layout->id == "peft-params";
          if (!params && (roles != Roles::natural || order != BOrder::rank_major)) continue;
          CAPTURE(g.family);
          CAPTURE(g.adapter);
          CAPTURE(layout->id);
          TempFolder temp;
          PlanOptions options;
          options.to = layout->id;
          options.load.base = g.base();
          options.load.read = g.read;
          options.layout.roles = roles;
          options.layout.b_order = order;
          const Conversion c = plan_conversion(g.folder(), options);
          WriteFolderOptions write;
          write.output.durable = false;
          write_conversion(c, temp.path + "/out", write);
          DecodeOptions decode = decode_options(spec, std::string(layout->id),
                                                g.adapter.find("down_only") != std::string::npos);
          decode.swapped = roles == Roles::swapped;
          decode.expert_major = order == BOrder::expert_major;
          check_deltas(temp.path + "/out", spec, decode, expected);
          CHECK(read_back(c, open_adapter(temp.path + "/out"), "out") > 0);
          ++conversions;
        }
    }
  }
  MESSAGE(conversions << " conversions of golden adapters compared with fp64 answers");
  CHECK(conversions >= 300);
}

TEST_CASE("tinker-cookbook and we make the same adapter of the same Tinker file") {
  for (const char* family : {"gpt_oss", "qwen3_moe"}) {
    CAPTURE(family);
    TempFolder temp;
    PlanOptions options;
    options.to = "peft-linear";
    options.load.base = kData + "/" + family + "/base";
    const Conversion c = plan_conversion(kData + "/" + family + "/tinker", options);
    WriteFolderOptions write;
    write.output.durable = false;
    write_conversion(c, temp.path + "/out", write);
    const Weights theirs =
        open_weights(kData + "/" + family + "/tinker.build_lora_adapter", {"adapter_model"});
    const Weights ours = open_weights(temp.path + "/out", {"adapter_model"});
    REQUIRE(ours.tensors.size() == theirs.tensors.size());
    for (const auto& entry : theirs.tensors) {
      CAPTURE(entry.first);
      REQUIRE(ours.tensors.count(entry.first) == 1);
      const Tensor& mine = ours.tensors.at(entry.first);
      CHECK(mine.dtype() == entry.second.dtype());
      CHECK(mine.shape() == entry.second.shape());
      CHECK(mine.read() == entry.second.read());
    }
    const auto config_of = [](const std::string& folder) {
      const std::string path = folder + "/adapter_config.json";
      return parse_adapter_config(read_json_file(path), path);
    };
    const AdapterConfig a = config_of(temp.path + "/out");
    const AdapterConfig b = config_of(kData + "/" + family + "/tinker.build_lora_adapter");
    std::vector<std::string> mine = a.target_modules, other = b.target_modules;
    std::sort(mine.begin(), mine.end());
    CHECK(mine == other);
    CHECK(a.r == b.r);
    CHECK(a.lora_alpha == b.lora_alpha);
  }
}

TEST_CASE("what bytes cannot decide is asked for") {
  PlanOptions options;
  options.to = "peft-linear";
  SUBCASE("the side of a lone square pair") {
    options.load.base = kData + "/gpt_oss_square/base";
    CHECK_THROWS_WITH_AS(plan_conversion(kData + "/gpt_oss_square/peft_params_down_only", options),
                         doctest::Contains("shapes are the same"), Error);
  }
  SUBCASE("the row order of gate and up without a base model") {
    CHECK_THROWS_WITH_AS(plan_conversion(kData + "/gpt_oss/peft_params", options),
                         doctest::Contains("halves or interleaved"), Error);
  }
}

TEST_CASE("a written folder that does not verify is not published") {
  TempFolder temp;
  PlanOptions options;
  options.to = "peft-linear";
  options.load.base = kData + "/gpt_oss/base";
  Conversion c = plan_conversion(kData + "/gpt_oss/peft_params", options);
  WriteFolderOptions write;
  write.output.durable = false;
  write.verify = [](const Conversion& done, const AdapterFiles& written) {
    return Verified{read_back(done, written, "out")};
  };
  SUBCASE("sound") {
    CHECK(write_conversion(c, temp.path + "/out", write).verified == 64);
    CHECK(fs::exists(temp.path + "/out/adapter_config.json"));
  }
  SUBCASE("two experts exchanged") {
    const std::string stem = "base_model.model.model.layers.1.mlp.experts.";
    std::swap(c.tensors.at(stem + "0.up_proj.lora_B.weight"),
              c.tensors.at(stem + "1.up_proj.lora_B.weight"));
    CHECK_THROWS_WITH_AS(write_conversion(c, temp.path + "/out", write),
                         doctest::Contains("layer 1 expert 0 up_proj lora_B"), Error);
    CHECK(fs::is_empty(temp.path));
  }
  SUBCASE("a scale lost") {
    c.config.set("lora_alpha", 4);
    CHECK_THROWS_WITH_AS(write_conversion(c, temp.path + "/out", write), doctest::Contains("scale"),
                         Error);
    CHECK(fs::is_empty(temp.path));
  }
}
