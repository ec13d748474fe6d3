#include "lib/io/tensor_writer.h"

#include <doctest/doctest.h>

#include <filesystem>

#include "lib/base/digest.h"
#include "lib/base/error.h"
#include "lib/io/weights.h"
#include "tests/io/temp_folder.h"

using namespace moelora;

TEST_CASE("what write_weights wrote, open_weights reads") {
  const TempFolder temp;
  const std::vector<float> values = {1, 2, 3, 4, 5, 6};
  const Tensor t = Tensor::of_f32({2, 3}, values);
  const TensorMap tensors = {
      {"a", t}, {"b", t.transpose(0, 1)}, {"z", Tensor::zeros(DType::BF16, {0, 4})}};
  OutputFolder out(temp.path("out"), {}, {});
  const WrittenWeights written = write_weights(out, "adapter_model", tensors, {});
  CHECK(written.files == std::vector<std::string>{"adapter_model.safetensors"});
  CHECK_FALSE(std::filesystem::exists(temp.path("out")));
  out.commit("adapter_config.json", "{}");
  const Weights back = open_weights(temp.path("out/adapter_model.safetensors"), {});
  REQUIRE(back.tensors.size() == tensors.size());
  for (const auto& [name, tensor] : tensors) {
    CHECK(back.tensors.at(name).shape() == tensor.shape());
    CHECK(back.tensors.at(name).read() == tensor.read());
    CHECK(written.tensors.at(name).digest == digest_hex(tensor.read()));
  }
}
