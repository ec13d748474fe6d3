// Types that two models have, told apart by their classes, and what is said of a family that was
// read in the servers' loaders.

#include <doctest/doctest.h>

#include <fstream>
#include <set>

#include "lib/model/base_model.h"
#include "lib/model/family.h"
#include "tests/io/error_text.h"
#include "tests/io/temp_folder.h"
#include "tests/model/loader_bases.h"

using namespace moelora;

TEST_CASE("a type that two models have is decided by the class") {
  CHECK(loader_spec("grok").family == "grok");
  CHECK(loader_spec("grok", R"({"architectures": ["Grok1ModelForCausalLM"]})").family == "grok");
  CHECK(loader_spec("grok_of_mixtral").family == "grok");
  CHECK(loader_spec("grok_of_mixtral", R"({"architectures": ["MixtralForCausalLM"]})").family ==
        "mixtral");
  CHECK(loader_spec("grok_of_mixtral", R"({"architectures": null})").family == "mixtral");
  for (const char* other : {R"({"architectures": ["GitForCausalLM"]})",
                            R"({"architectures": null})", R"({"architectures": []})"}) {
    CAPTURE(std::string(other));
    CHECK_THROWS_AS(loader_spec("grok", other), UnknownFamily);
    // Nor is GIT said to be known.
    CHECK(error_text([&] { loader_spec("grok", other); }).find("did you mean 'git'") ==
          std::string::npos);
  }
}

TEST_CASE(
    "a family's own file may hold to a class, too, and comes before those that are built in") {
  const TempFolder temp;
  std::string text = read_json_file(MOELORA_SOURCE_DIR "/schemas/models/grok.json").dump(1);
  text.replace(text.find("\"w1\""), 4, "\"first\"");
  std::ofstream(temp.path() + "/mine.json") << text;
  const std::string grok = write_loader_base(temp.path(), "grok_of_mixtral");
  CHECK(open_base(grok).spec.hub.gate == "w1");
  CHECK(open_base(grok, {temp.path() + "/mine.json"}).spec.hub.gate == "first");
  CHECK(open_base("mistralai/Mixtral-8x7B-v0.1", {temp.path() + "/mine.json"}).spec.hub.gate ==
        "w1");
}

TEST_CASE("what rests on loaders alone is marked, and said of a base") {
  std::set<std::string> marked;
  for (const Family& family : embedded_families())
    if (!family.from_loaders.empty()) marked.insert(family.name);
  CHECK(marked == std::set<std::string>{"bailing_moe", "grok", "grok1", "kimi_k3", "step3"});
  const TempFolder temp;
  for (const std::string& base : loader_bases()) {
    CAPTURE(base);
    const BaseModel model = open_base(write_loader_base(temp.path(), base));
    CHECK(marked.count(model.spec.family) == 1);
    CHECK_FALSE(model.spec.derived);
    CHECK(model.derived.find(": its modules and experts are those that weight loaders read (") !=
          std::string::npos);
  }
  CHECK(open_base(temp.path() + "/step3").derived.find("SGLang 0.5.23 step3_vl.py") !=
        std::string::npos);
  CHECK(open_base("openai/gpt-oss-20b").derived.empty());
}

TEST_CASE("no loader says in which order a fused gate and up would lie: what needs it stops") {
  for (const std::string& base : loader_bases()) {
    CAPTURE(base);
    const ModelSpec spec = loader_spec(base);
    CHECK_FALSE(spec.gate_up_order.has_value());
    CHECK(error_text([&] {
            required_gate_up_order(spec);
          }).find("nothing says in which order the rows of gate and up lie") != std::string::npos);
    CHECK(error_hint([&] { required_gate_up_order(spec); }).find("--model-spec") !=
          std::string::npos);
  }
}
