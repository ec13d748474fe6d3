// What `lora-convert --for peft` writes is, name by name and byte by byte, what real PEFT was seen
// to load with the reference's logits (tests/peers/run.sh; peft_outputs.json has its record).

#include <doctest/doctest.h>
#include <fmt/format.h>

#include "lib/adapter/init.h"
#include "lib/moelora.h"
#include "tests/adapter/readme_section.h"
#include "tests/io/temp_folder.h"

using namespace moelora;

namespace {

const Json& record() {
  static const Json kRecord =
      read_json_file(std::string(MOELORA_SOURCE_DIR) + "/tests/peers/peft_outputs.json");
  return kRecord;
}

std::vector<std::string> words(const std::string& text) {
  std::vector<std::string> out(1);
  for (const char c : text)
    if (c == ',')
      out.emplace_back();
    else
      out.back() += c;
  return out;
}

std::string base_of(const std::string& family) {
  return std::string(MOELORA_TEST_DATA) + "/catalogue/" + family;
}

void write_input(const std::string& family, const std::string& targets, const std::string& out) {
  InitOptions init;
  init.base = base_of(family);
  init.rank = record().find("rank")->as_int();
  init.alpha = record().find("alpha")->as_double();
  init.seed = static_cast<uint64_t>(record().find("seed")->as_int());
  init.targets = words(targets);
  init.to = "peft-linear";
  init.random_b = true;
  WriteFolderOptions write;
  write.output.durable = false;
  write_conversion(make_adapter(init), out, write);
}

// Without what depends on where and with which version it was written.
Json config_of(const std::string& folder) {
  Json out = read_json_file(folder + "/adapter_config.json");
  out.erase("base_model_name_or_path");
  const Json* mapping = out.find("auto_mapping");
  REQUIRE(mapping != nullptr);
  Json markers = *mapping;
  REQUIRE(markers.find("moelora") != nullptr);
  Json own = *markers.find("moelora");
  own.erase("version");
  markers.set("moelora", std::move(own));
  out.set("auto_mapping", std::move(markers));
  return out;
}

}  // namespace

TEST_CASE("what --for peft writes is what real PEFT loaded") {
  const TempFolder temp;
  for (const auto& entry : record().find("families")->members()) {
    const std::string& family = entry.first;
    const Json& seen = entry.second;
    CAPTURE(family);
    const std::string in = temp.path(family), out = temp.path(family + ".out");
    write_input(family, seen.find("targets")->as_string(), in);
    ConvertOptions options;
    options.base = base_of(family);
    options.engine = "peft@" + record().find("versions")->find("peft")->as_string();
    options.sync = false;
    convert(in, out, options);
    CHECK(config_of(out).dump() == seen.find("config")->dump());
    const Json report = read_json_file(out + "/conversion.json");
    const auto& tensors = seen.find("tensors")->members();
    CHECK(report.find("tensors")->members().size() == tensors.size());
    for (const auto& tensor : tensors) {
      CAPTURE(tensor.first);
      const Json* written = report.find("tensors")->find(tensor.first);
      REQUIRE(written != nullptr);
      CHECK(written->find("xxh3_128")->as_string() == tensor.second.as_string());
    }
  }
}

TEST_CASE("RESULTS.md says what real PEFT computed") {
  const Json& versions = *record().find("versions");
  std::string table = fmt::format(
      "torch {}, transformers {}, PEFT {}; `tests/peers/run.sh`.\n\n"
      "| family | adapted | change of the logits | off the reference | the input as it is |\n"
      "|---|---|---|---|---|\n",
      versions.find("torch")->as_string(), versions.find("transformers")->as_string(),
      versions.find("peft")->as_string());
  for (const auto& [family, seen] : record().find("families")->members())
    table += fmt::format("| {} | {} | {:.2g} | {:.1g} | {} |\n", family,
                         seen.find("targets")->as_string(), seen.find("effect")->as_double(),
                         seen.find("off")->as_double(), seen.find("unchanged")->as_string());
  check_results_section("peft_peers", table);
}
