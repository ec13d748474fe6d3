// NeMo AutoModel's word for the side that lora_A is on counts where shapes leave it open.

#include <doctest/doctest.h>

#include <fstream>

#include "tests/adapter/made_adapter.h"
#include "tests/io/error_text.h"
#include "tests/io/temp_folder.h"

using namespace moelora;
using namespace moelora::test;

namespace {

// down_proj of 8 experts; without a base either side will do.
class Folder {
 public:
  explicit Folder(const std::string& more = "") {
    MadeAdapter made(R"({"r": 2, "lora_alpha": 4, "target_parameters": ["experts.down_proj"])" +
                     more + "}");
    made.pair("model.layers.0.mlp.experts", {16, 24}, {64, 16});
    made.write(path());
  }

  std::string path() const { return temp_.path("a"); }
  void stamp(const std::string& word) const {
    std::ofstream(path() + "/automodel_peft_config.json")
        << R"({"dim": 2, "paramwrapper_layout": )" << word << "}";
  }
  LoadedAdapter load() const { return load_adapter(path(), {}); }

 private:
  TempFolder temp_;
};

}  // namespace

TEST_CASE("AutoModel's stamp says which side lora_A is on") {
  const Folder folder;
  CHECK(error_text([&] { folder.load(); }).find("lora_A may lie on the input or on the output") !=
        std::string::npos);
  folder.stamp(R"("peft-0.19.1")");
  CHECK(folder.load().adapter.stacked->roles == Roles::natural);
  folder.stamp(R"("peft-0.18")");
  CHECK(folder.load().adapter.stacked->roles == Roles::swapped);
}

TEST_CASE("a stamp of AutoModel's that is not known decides nothing, and ours counts first") {
  const Folder folder;
  for (const std::string word : {"\"peft-2\"", "1", "null"}) {
    CAPTURE(word);
    folder.stamp(word);
    CHECK(!error_text([&] { folder.load(); }).empty());
  }
  folder.stamp("");  // no JSON
  CHECK(error_text([&] { folder.load(); }).find("lora_A may lie") != std::string::npos);
  const Folder ours(R"(, "moelora": {"roles": "natural"})");
  ours.stamp(R"("peft-0.18")");
  CHECK(ours.load().adapter.stacked->roles == Roles::natural);
  ours.stamp("");
  CHECK(ours.load().adapter.stacked->roles == Roles::natural);
  ours.stamp(R"("peft-2")");
  CHECK(ours.load().adapter.stacked->roles == Roles::natural);
}
