#include <doctest/doctest.h>

#include "lib/io/safetensors.h"
#include "lib/io/tensor_writer.h"

using namespace moelora;

namespace {

TensorMap of_sizes(const std::vector<int64_t>& sizes) {
  TensorMap out;
  for (size_t i = 0; i < sizes.size(); ++i)
    out.emplace("t" + std::to_string(i), Tensor::zeros(DType::U8, {sizes[i]}));
  return out;
}

std::vector<size_t> counts(const std::vector<Shard>& shards) {
  std::vector<size_t> out;
  for (const Shard& shard : shards) out.push_back(shard.tensors.size());
  return out;
}

}  // namespace

TEST_CASE("without a limit there is one shard, with the plain name") {
  const auto shards = split_shards("model", of_sizes({5, 5, 5}), 0);
  REQUIRE(counts(shards) == std::vector<size_t>{3});
  CHECK(shards[0].file == "model.safetensors");
  CHECK(counts(split_shards("model", {}, 10)) == std::vector<size_t>{0});
}

TEST_CASE("a shard is filled in name order until the next tensor would pass the limit") {
  const auto shards = split_shards("model", of_sizes({4, 6, 1, 10, 25, 3}), 10);
  CHECK(counts(shards) == std::vector<size_t>{2, 1, 1, 1, 1});
  CHECK(shards[0].file == "model-00001-of-00005.safetensors");
  CHECK(shards[4].file == "model-00005-of-00005.safetensors");
}

TEST_CASE("a header that hub tools would not read is split") {
  TensorMap many;
  const Tensor t = Tensor::zeros(DType::BF16, {16, 2048});
  for (int i = 0; i < 6'000; ++i) many.emplace(std::to_string(i) + std::string(5'000, '"'), t);
  const auto shards = split_shards("adapter_model", many, 0);
  CHECK(shards.size() == 3);
  for (const Shard& shard : shards)
    CHECK(plan_header(shard.tensors, {{"format", "pt"}}).header.size() <= 8 + kHubHeaderBytes);
}
