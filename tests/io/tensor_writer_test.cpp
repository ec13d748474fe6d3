#include "lib/io/tensor_writer.h"

#include <doctest/doctest.h>

#include <filesystem>
#include <fstream>
#include <random>

#include "lib/base/cast.h"
#include "lib/base/digest.h"
#include "lib/base/error.h"
#include "lib/io/weights.h"
#include "tests/io/temp_folder.h"

using namespace moelora;
namespace fs = std::filesystem;

namespace {

std::string get(const std::string& path) {
  std::ifstream file(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

Tensor random_tensor(DType dtype, const Shape& shape, uint32_t seed) {
  std::mt19937 rng(seed);
  std::vector<std::byte> bytes(Tensor::zeros(dtype, shape).bytes());
  for (std::byte& b : bytes) b = static_cast<std::byte>(rng());
  return Tensor(std::make_shared<MemorySource>(dtype, std::move(bytes)), shape);
}

// Stacked lora_B split, gate and up transposed, a cast, a scalar, nothing: one of each.
TensorMap mixed() {
  TensorMap out;
  const Tensor b = random_tensor(DType::BF16, {40, 4 * 6}, 1).reshape({40, 4, 6});
  const Tensor gate_up = random_tensor(DType::F16, {30, 2 * 20}, 2).reshape({30, 20, 2});
  for (int64_t e = 0; e < 6; ++e)
    out.emplace("experts." + std::to_string(e) + ".lora_B", b.select(2, e));
  out.emplace("gate", gate_up.select(2, 0).transpose(0, 1));
  out.emplace("up", gate_up.select(2, 1).transpose(0, 1));
  out.merge(cast_tensors({{"cast", random_tensor(DType::F32, {7, 9}, 3)}}, DType::BF16));
  out.emplace("scalar", random_tensor(DType::I64, {}, 4));
  out.emplace("none", Tensor::zeros(DType::F32, {0, 3}));
  out.emplace("zeros", Tensor::zeros(DType::U8, {5}));
  return out;
}

WrittenWeights write(const std::string& path, const TensorMap& tensors,
                     const WriteOptions& options = {}) {
  OutputFolder out(path, {}, {false, false});
  WrittenWeights written = write_weights(out, "model", tensors, options);
  out.commit("config.json", "{}");
  return written;
}

void check_same(const TensorMap& found, const TensorMap& expected) {
  REQUIRE(found.size() == expected.size());
  for (const auto& entry : expected) {
    const std::string& name = entry.first;
    const Tensor& tensor = entry.second;
    CAPTURE(name);
    CHECK(found.at(name).dtype() == tensor.dtype());
    CHECK(found.at(name).shape() == tensor.shape());
    CHECK(found.at(name).read() == tensor.read());
  }
}

}  // namespace

TEST_CASE("what write_weights wrote, open_weights reads") {
  const TempFolder temp;
  const TensorMap tensors = mixed();
  const WrittenWeights written = write(temp.path("out"), tensors);
  CHECK(written.files == std::vector<std::string>{"model.safetensors"});
  uint64_t bytes = 0;
  for (const auto& [name, tensor] : tensors) {
    CHECK(written.tensors.at(name).file == "model.safetensors");
    CHECK(written.tensors.at(name).digest == digest_hex(tensor.read()));
    bytes += tensor.bytes();
  }
  CHECK(written.bytes == bytes);
  check_same(open_weights(temp.path("out"), {"model"}).tensors, tensors);
}

TEST_CASE("shards have an index as huggingface writes it, and are read back as one") {
  const TempFolder temp;
  const TensorMap tensors = {{"a", random_tensor(DType::BF16, {2, 10}, 1)},
                             {"b", random_tensor(DType::BF16, {30}, 2)},
                             {"c", random_tensor(DType::F32, {5}, 3)}};
  WriteOptions options;
  options.max_shard_size = 60;
  const WrittenWeights written = write(temp.path("out"), tensors, options);
  CHECK(written.files == std::vector<std::string>{
                             "model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors",
                             "model-00003-of-00003.safetensors", "model.safetensors.index.json"});
  CHECK(get(temp.path("out/model.safetensors.index.json")) == R"({
  "metadata": {
    "total_size": 120
  },
  "weight_map": {
    "a": "model-00001-of-00003.safetensors",
    "b": "model-00002-of-00003.safetensors",
    "c": "model-00003-of-00003.safetensors"
  }
}
)");
  const Weights back = open_weights(temp.path("out"), {"model"});
  CHECK(back.warnings.empty());
  check_same(back.tensors, tensors);
}

TEST_CASE("the bytes depend on neither threads nor memory nor whether digests are taken") {
  const TempFolder temp;
  write(temp.path("first"), mixed());
  const std::string expected = get(temp.path("first/model.safetensors"));
  int n = 0;
  for (const int threads : {1, 2, 8})
    for (const uint64_t memory : {1u << 10, 20u << 10, 64u << 20})
      for (const bool digests : {true, false}) {
        const std::string path = temp.path("out" + std::to_string(n++));
        const WrittenWeights written = write(path, mixed(), {0, threads, memory, digests});
        CHECK(get(path + "/model.safetensors") == expected);
        CHECK(written.tensors.at("up").digest.empty() == !digests);
      }
}

TEST_CASE("a file's tensors are copied bit for bit, sub-byte ones and shared bytes too") {
  const TempFolder temp;
  const TensorMap tensors = {{"blocks", random_tensor(DType::U8, {3, 16}, 1)},
                             {"scales", random_tensor(DType::F8_E8M0, {9}, 2)},
                             {"x", random_tensor(DType::C64, {100, 100}, 3)}};
  write(temp.path("first"), tensors);
  const FilePtr file = File::open(temp.path("first/model.safetensors"));
  const SafetensorsFile opened = open_safetensors(temp.path("first/model.safetensors"));
  const uint64_t at = file_range(*opened.tensors.at("blocks").pieces()[0].source)->begin;
  TensorMap packed = opened.tensors;
  packed.emplace("f4", Tensor(file_source(file, at, DType::F4, 96, "f4"), {2, 48}));
  packed.emplace("f6", Tensor(file_source(file, at, DType::F6_E3M2, 64, "f6"), {64}));
  packed.emplace("f6 odd", Tensor(file_source(file, at, DType::F6_E2M3, 60, "f6 odd"), {5, 12}));
  const uint64_t x = file_range(*opened.tensors.at("x").pieces()[0].source)->begin;
  packed.emplace("f6 long", Tensor(file_source(file, x, DType::F6_E2M3, 106'664, "f6"), {106'664}));
  packed.emplace("again", opened.tensors.at("x"));
  for (const uint64_t memory : {2u << 10, 64u << 20}) {
    const std::string path = temp.path("out" + std::to_string(memory));
    write(path, packed, {0, 3, memory});
    check_same(open_weights(path, {"model"}).tensors, packed);
  }
}

TEST_CASE("a refused tensor leaves no output") {
  const TempFolder temp;
  CHECK_THROWS_AS(write(temp.path("out"), {{"__metadata__", Tensor::zeros(DType::F32, {1})}}),
                  Error);
  CHECK(temp.names().empty());
}

TEST_CASE("an input cut short while it is read is an error, and leaves no output") {
  const TempFolder temp;
  write(temp.path("in"), {{"x", random_tensor(DType::F32, {1000, 100}, 1)}});
  const SafetensorsFile in = open_safetensors(temp.path("in/model.safetensors"));
  SUBCASE("cut short") {
    fs::resize_file(temp.path("in/model.safetensors"), 5000);
    CHECK_THROWS_AS(write(temp.path("out"), in.tensors), Error);
    CHECK(temp.names() == std::vector<std::string>{"in"});
  }
  SUBCASE("whole") {
    write(temp.path("out"), in.tensors);
    CHECK(get(temp.path("out/model.safetensors")) == get(temp.path("in/model.safetensors")));
  }
}
