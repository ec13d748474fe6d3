// NUM001 of an adapter in another trainer's form: what it means is compared with its source.

#include <doctest/doctest.h>

#include <algorithm>
#include <fstream>

#include "lib/adapter/convert.h"
#include "lib/check/define_rule.h"
#include "lib/check/validate.h"
#include "lib/io/weights.h"
#include "tests/io/safetensors_bytes.h"
#include "tests/io/temp_folder.h"

using namespace moelora;

namespace {

const std::string kData = std::string(MOELORA_TEST_DATA) + "/qwen3_moe";
const std::string kBase = kData + "/base", kSource = kData + "/peft_params";

// kSource as lora-convert writes it for MLX.
class ForMlx {
 public:
  ForMlx() {
    PlanOptions options;
    options.to = "mlx";
    options.load.base = kBase;
    write_conversion(plan_conversion(kSource, options), path(), {});
  }

  std::string path() const { return temp_.path("mlx"); }
  std::string weights() const { return path() + "/adapters.safetensors"; }

  // Experts 0 and 1 of the tensors whose names end so, exchanged.
  void exchange_experts(const std::string& end) const {
    TensorMap changed = open_weights(path(), {"adapters"}).tensors;
    for (auto& [name, tensor] : changed)
      if (name.ends_with(end))
        tensor = Tensor::concat(0, std::vector{tensor.slice(0, 1, 1), tensor.slice(0, 0, 1),
                                               tensor.slice(0, 2, tensor.dim(0) - 2)});
    const std::string bytes = safetensors_bytes(changed);
    std::ofstream(weights(), std::ios::binary) << bytes;
  }

  void change_config(const std::string& from, const std::string& to) const {
    std::string text = read_json_file(path() + "/adapter_config.json").dump();
    REQUIRE(text.find(from) != std::string::npos);
    text.replace(text.find(from), from.size(), to);
    std::ofstream(path() + "/adapter_config.json") << text;
  }

  ValidationReport compared(bool forward = false) const {
    ValidateRequest wanted;
    wanted.adapters = {path()};
    wanted.subject.load.base = kBase;
    wanted.subject.threads = 1;
    wanted.numeric = true;
    wanted.forward = forward;
    wanted.device = DeviceChoice::cpu;
    wanted.source = kSource;
    return validate(wanted);
  }

 private:
  TempFolder temp_;
};

std::vector<Finding> num001(const ValidationReport& report) {
  std::vector<Finding> out;
  for (const Finding& finding : report.results.findings)
    if (finding.rule->id == "NUM001") out.push_back(finding);
  return out;
}

bool says(const std::vector<std::string>& notes, const std::string& text) {
  return std::any_of(notes.begin(), notes.end(),
                     [&](const auto& n) { return n.find(text) != std::string::npos; });
}

}  // namespace

TEST_CASE("what is written for MLX is its source, and it is said how it was read") {
  const ForMlx made;
  const ValidationReport report = made.compared(true);
  CHECK(num001(report).empty());
  CHECK(says(report.results.notes, made.path() + ": written by MLX: read as dialect mlx"));
  CHECK(std::none_of(report.results.skipped.begin(), report.results.skipped.end(),
                     [](const Skipped& s) { return s.what.find("NUM001") != std::string::npos; }));
  const auto& forward = report.deployments[0].adapters[0].forward;
  REQUIRE(forward);
  CHECK(forward->deltas == 48);
  CHECK(forward->differences.empty());
}

TEST_CASE("of what is written for MLX, experts in each other's place are found") {
  const ForMlx made;
  made.exchange_experts("layers.1.mlp.switch_mlp.up_proj.lora_b");
  const auto found = num001(made.compared());
  REQUIRE(found.size() == 1);
  CHECK(found[0].severity == Severity::error);
  CHECK(found[0].message.find("layers 1, experts 0, 1") != std::string::npos);
  CHECK(found[0].file == "adapters.safetensors");
  CHECK(found[0].where.starts_with("model.layers.1.mlp.switch_mlp.up_proj.lora_"));
  INFO(found[0].fix);
  CHECK(found[0].fix.find("--to mlx") != std::string::npos);
}

TEST_CASE("of what is written for MLX, another scale is found") {
  const ForMlx made;
  made.change_config("2.0", "4.0");
  const auto found = num001(made.compared());
  REQUIRE(found.size() == 1);
  CHECK(found[0].severity == Severity::error);
  CHECK(found[0].message.find("scale") != std::string::npos);
}

TEST_CASE("what is written for MLX and cannot be read is an error, not silence") {
  const ForMlx made;
  made.change_config("\"rank\": 4", "\"rank\": 5");
  const auto found = num001(made.compared());
  REQUIRE(found.size() == 1);
  CHECK(found[0].unchecked);
  CHECK(found[0].message.find("cannot be compared with its source") != std::string::npos);
}
