// Buffers as files: every byte of what Engine::fill holds, and nothing else in the folder.

#include "lib/engine/buffers.h"

#include <doctest/doctest.h>

#include "lib/base/error.h"
#include "lib/io/file.h"
#include "lib/io/weights.h"
#include "tests/adapter/goldens.h"

using namespace moelora;
using test::TempFolder;

namespace {

const std::string kData = MOELORA_TEST_DATA;

BufferOptions options(const std::string& to, const std::string& family) {
  BufferOptions out;
  out.to = to;
  out.base = kData + "/" + family + "/base";
  return out;
}

WriteBuffersOptions folder_options(uint64_t shard_size) {
  WriteBuffersOptions out;
  out.weights.max_shard_size = shard_size;
  out.verify = true;
  return out;
}

std::string message(const std::string& in, const BufferOptions& how) {
  try {
    plan_buffers(in, how);
  } catch (const Error& e) {
    return e.text();
  }
  return "";
}

}  // namespace

TEST_CASE("the files hold the buffers byte for byte, in one file or in shards") {
  TempFolder temp;
  for (const char* form : {"sglang-pool", "vllm-stacked"})
    for (const uint64_t shard_size : {uint64_t{0}, uint64_t{5000}}) {
      BufferOptions how = options(form, "gpt_oss");
      how.server_pairs = {"tp-size=2", "tp-rank=1"};
      const BufferConversion planned = plan_buffers(kData + "/gpt_oss/attention_only", how);
      const std::string out = temp.path + "/" + form + std::to_string(shard_size);
      const WrittenConversion written = write_buffers(planned, out, folder_options(shard_size));
      CHECK(written.verified == static_cast<int64_t>(planned.buffers.size()));
      const Weights back = open_weights(out, {"buffers"});
      REQUIRE(back.tensors.size() == planned.buffers.size());
      for (const auto& [name, tensor] : planned.buffers)
        CHECK(back.tensors.at(name).read() == tensor.read());
      CHECK(back.files.size() > (shard_size == 0 ? 0 : 1));
      CHECK(ending_in(files_in(out), {"adapter_config.json"}).empty());
    }
}

TEST_CASE("ranks differ, and each is the one that was asked for") {
  BufferOptions how = options("sglang-pool", "gpt_oss");
  how.server_pairs = {"tp-size=2"};
  const std::string in = kData + "/gpt_oss/attention_only", key = "layers.0.o_proj.A";
  const auto first = plan_buffers(in, how).buffers.at(key).read();
  how.server_pairs = {"tp-size=2", "tp-rank=0"};
  CHECK(plan_buffers(in, how).buffers.at(key).read() == first);
  how.server_pairs = {"tp-size=2", "tp-rank=1"};
  CHECK(plan_buffers(in, how).buffers.at(key).read() != first);
}

TEST_CASE("a folder that no server serves is refused as the server refuses it") {
  TempFolder temp;
  CHECK(message(temp.path, options("sglang-pool", "gpt_oss")) ==
        "holds no file, expected adapter_model.safetensors");
  BufferOptions how = options("sglang-pool", "gpt_oss");
  CHECK(message(kData + "/gpt_oss/regex_targets", how)
            .find("Only 'all' or 'all-linear' can be used as the string for target module") !=
        std::string::npos);
  how.to = "vllm-stacked";
  CHECK(message(kData + "/gpt_oss/dora_attention", how).find("DoRA") != std::string::npos);
}
