// lora-convert --verify: what the packed check finds wrong never gets its name.

#include "lib/compare/verify_conversion.h"

#include <doctest/doctest.h>
#include <unistd.h>

#include <filesystem>

#include "lib/base/error.h"
#include "lib/io/weights.h"

using namespace moelora;

namespace {

namespace fs = std::filesystem;

const std::string kGptOss = std::string(MOELORA_TEST_DATA "/gpt_oss");

struct TempFolder {
  std::string path;
  TempFolder() {
    std::string name = (fs::temp_directory_path() / "moelora_verify_XXXXXX").string();
    path = mkdtemp(name.data());
  }
  ~TempFolder() { fs::remove_all(path); }
};

struct Written {
  std::string in = kGptOss + "/peft_params";
  Conversion conversion;
  WriteFolderOptions options;
  TempFolder temp;

  explicit Written(const std::string& to = "peft-linear", std::optional<DType> dtype = {}) {
    PlanOptions convert;
    convert.to = to;
    convert.load.base = kGptOss + "/base";
    convert.dtype = dtype;
    conversion = plan_conversion(in, convert);
    options.output.durable = false;
    options.verify = packed_verifier(in, 1);
  }

  int64_t write() { return write_conversion(conversion, temp.path + "/out", options).verified; }
};

}  // namespace

TEST_CASE("a sound conversion is verified and counted, whatever the layout and type") {
  CHECK(Written().write() == 64);
  CHECK(Written("stacked").write() == 64);
  CHECK(Written("stacked-fused").write() == 48);
  CHECK(Written("peft-params").write() == 48);
  CHECK(Written("stacked", DType::BF16).write() == 64);
}

TEST_CASE(
    "two experts exchanged, a scale lost and a value too large for its type are not published") {
  Written w;
  SUBCASE("experts") {
    const std::string stem = "base_model.model.model.layers.1.mlp.experts.";
    std::swap(w.conversion.tensors.at(stem + "0.up_proj.lora_B.weight"),
              w.conversion.tensors.at(stem + "1.up_proj.lora_B.weight"));
    CHECK_THROWS_WITH_AS(w.write(), doctest::Contains("two experts are exchanged; layers 1"),
                         Error);
  }
  SUBCASE("scale") {
    w.conversion.config.set("lora_alpha", 4);
    CHECK_THROWS_WITH_AS(w.write(), doctest::Contains("scale"), Error);
  }
  SUBCASE("a tensor left out") {
    w.conversion.tensors.erase(w.conversion.tensors.begin());
    CHECK_THROWS_AS(w.write(), Error);
  }
  CHECK(fs::is_empty(w.temp.path));
}

TEST_CASE("the source is read anew, not taken from the conversion") {
  // A reader and a writer with the same mistake: the conversion believes that gate is up. Its own
  // round trip would pass.
  Written w;
  TensorMap wrong;
  for (const auto& [name, tensor] : w.conversion.tensors) {
    std::string other = name;
    if (const size_t at = name.find("gate_proj"); at != std::string::npos)
      other.replace(at, 9, "up_proj");
    else if (const size_t up = name.find("up_proj"); up != std::string::npos)
      other.replace(up, 7, "gate_proj");
    wrong[other] = tensor;
  }
  w.conversion.tensors = std::move(wrong);
  CHECK_THROWS_WITH_AS(w.write(), doctest::Contains("gate and up halves"), Error);
  CHECK(fs::is_empty(w.temp.path));
}
