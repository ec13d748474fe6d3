// Folders as they lie on disk: what is wrong with shards, pickles and foreign files, and the rule
// that says so.

#include <doctest/doctest.h>

#include <fstream>

#include "tests/check/goldens.h"
#include "tests/io/safetensors_bytes.h"
#include "tests/io/temp_folder.h"

using namespace moelora;
using namespace moelora::test;

namespace {

constexpr const char* kConfig =
    R"({"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["q_proj"]})";

void write(const TempFolder& folder, const std::string& name, const std::string& text) {
  std::ofstream(folder.path(name), std::ios::binary) << text;
}

// A sound file of one tensor.
void write_tensor(const TempFolder& folder, const std::string& file, const std::string& tensor) {
  write(folder, file, safetensors_bytes({{tensor, filled({4, 64}, 0.5F)}}));
}

std::string index_of(const std::string& entries) {
  return R"({"metadata": {"total_size": 1024}, "weight_map": {)" + entries + "}}";
}

// Rules that find an error in what lies in the folder, and the first one's message.
struct Found {
  std::vector<std::string_view> rules;
  std::string message;
};

Found check(const TempFolder& folder) {
  Deployment deployment;
  Subject subject = open_subject(folder.path());
  interpret(subject, std::nullopt, {});
  deployment.adapters.push_back(std::move(subject));
  Found out;
  for (const Finding& finding : run_rules(deployment).findings) {
    if (finding.severity != Severity::error) continue;
    if (out.rules.empty()) out.message = finding.message;
    out.rules.push_back(finding.rule->id);
  }
  return out;
}

using Rules = std::vector<std::string_view>;
const std::string kA = "base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight";
const std::string kShard = "adapter_model-00001-of-00002.safetensors";
const std::string kIndex = "adapter_model.safetensors.index.json";

}  // namespace

TEST_CASE("shards that do not fit together are FMT004, each fault in its words") {
  TempFolder folder;
  write(folder, "adapter_config.json", kConfig);
  write_tensor(folder, kShard, kA);
  SUBCASE("one is missing") {
    write(folder, kIndex,
          index_of(R"(")" + kA + R"(": ")" + kShard +
                   R"(", "b": "adapter_model-00002-of-00002.safetensors")"));
    const Found found = check(folder);
    CHECK(found.rules == Rules{"FMT004"});
    CHECK(found.message.find("00002-of-00002") != std::string::npos);
  }
  SUBCASE("a path leaves the folder") {
    write(folder, kIndex, index_of(R"(")" + kA + R"(": "../elsewhere.safetensors")"));
    CHECK(check(folder).rules == Rules{"FMT004"});
  }
  SUBCASE("a tensor lies in two") {
    write_tensor(folder, "adapter_model-00002-of-00002.safetensors", kA);
    write(folder, kIndex,
          index_of(R"(")" + kA + R"(": ")" + kShard +
                   R"(", "b": "adapter_model-00002-of-00002.safetensors")"));
    CHECK(check(folder).rules == Rules{"FMT004"});
  }
  SUBCASE("there is no index") { CHECK(check(folder).rules == Rules{"FMT004"}); }
}

TEST_CASE("an index that is not read, since a file of its name lies beside it, is warned of") {
  TempFolder folder;
  write(folder, "adapter_config.json", kConfig);
  write_tensor(folder, "adapter_model.safetensors", kA);
  const auto warned = [&] {
    Deployment deployment;
    deployment.adapters.push_back(open_subject(folder.path()));
    interpret(deployment.adapters.back(), std::nullopt, {});
    std::string out;
    for (const Finding& finding : run_rules(deployment).findings)
      if (finding.rule->id == "FMT004" && finding.severity == Severity::warning)
        out += finding.message;
    return out;
  };
  CHECK(warned() == "");
  write(folder, kIndex, index_of(R"(")" + kA + R"(": "adapter_model.safetensors")"));
  CHECK(warned() == "");
  write(folder, kIndex, index_of(R"("x": "adapter_model.safetensors")"));
  CHECK(warned() ==
        "is not in adapter_model.safetensors, where the index says it is (not read, "
        "adapter_model.safetensors beside it is the weights)");
  CHECK(check(folder).rules == Rules{"FMT006"});  // of one factor, and nothing of the index
}

TEST_CASE("a file of another kind is FMT021, and says what it is") {
  TempFolder folder;
  write(folder, "adapter_config.json", kConfig);
  write(folder, "adapter_model.safetensors",
        "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n");
  const Found found = check(folder);
  CHECK(found.rules == Rules{"FMT021"});
  CHECK(found.message.find("Git LFS pointer") != std::string::npos);
}

TEST_CASE("what is not there is said once, and nothing is made up about it") {
  TempFolder folder;
  CHECK(check(folder).rules == Rules{"FMT002", "FMT021"});
  write(folder, "adapter_config.json", kConfig);
  CHECK(check(folder).rules == Rules{"FMT002"});
  write_tensor(folder, "adapter_model.safetensors", kA);
  CHECK(check(folder).rules == Rules{"FMT006"});
  write(folder, "adapter_config.json", "{\"r\": NaN}");
  CHECK(check(folder).rules == Rules{"FMT006", "FMT021"});
}
