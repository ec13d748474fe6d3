// Every crafted safetensors file of tests/data, as the weights of an adapter: refused ones become
// findings, sound ones none of the file's.

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>

#include "tests/check/goldens.h"
#include "tests/io/temp_folder.h"

using namespace moelora;
using namespace moelora::test;

namespace {

namespace fs = std::filesystem;

struct Crafted {
  std::string file;
  bool refused;
};

// verdicts.tsv: case, what the reference reader says, what ours must say, the reference's error.
std::vector<Crafted> crafted_files() {
  const std::string folder = std::string(MOELORA_TEST_DATA) + "/safetensors/";
  std::ifstream table(folder + "verdicts.tsv");
  std::vector<Crafted> out;
  for (std::string name, reference, ours, rest; table >> name >> reference >> ours;) {
    std::getline(table, rest);
    const std::string file = folder + name + ".safetensors";
    // Since the table was made the one is refused, and the other read, as the reference does.
    const bool unknown_field = name == "101_deep_127", from_mlx = name == "80_meta_null";
    if (fs::exists(file)) out.push_back({file, (ours == "refuse" && !from_mlx) || unknown_field});
  }
  return out;
}

}  // namespace

TEST_CASE("every safetensors file that must be refused is a finding of FMT001 or FMT021") {
  int refused = 0, read = 0;
  for (const Crafted& crafted : crafted_files()) {
    CAPTURE(crafted.file);
    TempFolder folder;
    std::ofstream(folder.path("adapter_config.json"))
        << R"({"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]})";
    fs::copy(crafted.file, folder.path("adapter_model.safetensors"));
    Deployment deployment;
    Subject subject = open_subject(folder.path());
    interpret(subject, std::nullopt, {});
    deployment.adapters.push_back(std::move(subject));
    const RuleResults results = run_rules(deployment);
    const size_t findings = found_by(results, "FMT001").size() + found_by(results, "FMT021").size();
    CHECK((findings == 1) == crafted.refused);
    if (crafted.refused) CHECK(!found_by(results, "FMT002").size());
    ++(crafted.refused ? refused : read);
  }
  CHECK(refused > 40);
  CHECK(read > 15);
}
