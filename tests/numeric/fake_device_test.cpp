// The CUDA module's logic without a card: its own sources over a CUDA of plain loops.

#include "tests/numeric/fake_device.h"

#include <doctest/doctest.h>

#include <cstdlib>

#include "tests/numeric/batch_time.h"
#include "tests/numeric/device_cases.h"

namespace moelora::test {
namespace {

// What cudaMalloc gives in all, for as long as this lives.
struct FakeMemory {
  explicit FakeMemory(uint64_t bytes) {
    setenv("FAKE_CUDA_MEMORY", std::to_string(bytes).c_str(), 1);
  }
  ~FakeMemory() { unsetenv("FAKE_CUDA_MEMORY"); }
};

double relative_difference(const std::vector<float>& a, const std::vector<float>& b) {
  return relative_error(std::vector<double>(a.begin(), a.end()),
                        std::vector<double>(b.begin(), b.end()));
}

bool have_fake() {
  if (!fake_module().empty()) return true;
  MESSAGE("skipped: libmoelora_cuda_fake.so is not beside this executable");
  return false;
}

}  // namespace

TEST_CASE("On a fake card every path computes what the double forward computes") {
  if (!have_fake()) return;
  Device device(fake_module());
  for (const LayerCase& c : ugly_cases())
    for (const int64_t tokens : {1, 7, 129}) check_all_paths(device, c, made_layer(c), tokens);
}

TEST_CASE("Recorded work does the same each time it is replayed") {
  if (!have_fake()) return;
  Device device(fake_module());
  const LayerCase c = ugly_cases()[2];
  const MadeLayer made = made_layer(c);
  const Routing routing = made_routing(c, 7);
  const std::vector<double> x = made_tokens(c, 7);
  const std::vector<float> x32(x.begin(), x.end());
  const DeviceLayer layer(device, made.layer, made.weights, {0, c.experts});
  for (const kernels::Path path :
       {kernels::Path::per_expert, kernels::Path::gathered, kernels::Path::batched}) {
    DeviceBatch plain(layer, routing, x32, {path, 3, false, false});
    DeviceBatch recorded(layer, routing, x32, {path, 3, true, false});
    plain.run();
    recorded.run();
    recorded.run();
    CHECK(recorded.out() == plain.out());
    DeviceBatch* const both[] = {&plain, &recorded};
    CHECK(batch_time(both, 2, 5) == std::vector<float>(5, 500.0F));
  }
}

TEST_CASE("Choices outside the window, all of them, and no tokens at all") {
  if (!have_fake()) return;
  Device device(fake_module());
  const LayerCase c;
  const MadeLayer made = made_layer(c);
  Routing routing = made_routing(c, 4);
  const std::vector<double> x = made_tokens(c, 4);
  const std::vector<float> x32(x.begin(), x.end());
  for (int32_t& e : routing.experts) e = e == 0 ? -1 : e;
  const DeviceLayer first(device, made.layer, made.weights, {0, 1});
  for (const kernels::Path path : {kernels::Path::naive, kernels::Path::per_expert,
                                   kernels::Path::gathered, kernels::Path::batched}) {
    DeviceBatch batch(first, routing, x32, {path, 8, false, false});
    batch.run();
    CHECK(batch.out() == std::vector<float>(x.size(), 0.0F));
    DeviceBatch none(first, {0, c.top_k, {}, {}}, {}, {path, 8, false, false});
    none.run();
    CHECK(none.out().empty());
  }
}

TEST_CASE("With too little memory a smaller plan gives the same result") {
  if (!have_fake()) return;
  Device device(fake_module());
  LayerCase c;
  c.experts = 7;
  const MadeLayer made = made_layer(c);
  const Routing routing = made_routing(c, 40);
  const std::vector<double> x = made_tokens(c, 40);
  const std::vector<float> x32(x.begin(), x.end());
  DeviceForwardOptions options;
  options.path = kernels::Path::per_expert;
  forward_device(device, made.layer, made.weights, routing, x32, options);  // makes all 7 lanes
  options.path = kernels::Path::batched;
  const auto [whole, first] =
      forward_device(device, made.layer, made.weights, routing, x32, options);
  CHECK(to_string(first) == "cuBLAS, experts as one batch; at a time: experts 7, tokens 40");

  constexpr uint64_t lanes = uint64_t{7} << 25;  // their workspaces, which stay
  const auto with = [&, &whole = whole](uint64_t kilobytes) {
    const FakeMemory memory(lanes + kilobytes * 1000);
    const auto [parts, plan] =
        forward_device(device, made.layer, made.weights, routing, x32, options);
    CHECK(relative_difference(parts.out, whole.out) <= 1e-6);
    CHECK(relative_difference(parts.hidden, whole.hidden) == 0);
    CHECK(parts.input == whole.input);
    for (const Projection p : {Projection::gate, Projection::up, Projection::down})
      CHECK(relative_difference(parts.projections.at(p).rank, whole.projections.at(p).rank) == 0);
    return to_string(plan);
  };
  CHECK(with(500) == "cuBLAS, experts as one batch; at a time: experts 7, tokens 40");
  CHECK(with(400) == "cuBLAS, expert by expert; at a time: experts 7, tokens 40");
  CHECK(with(300) == "cuBLAS, expert by expert; at a time: experts 7, tokens 20");
  CHECK(with(200) == "cuBLAS, expert by expert; at a time: experts 4, tokens 20");
  CHECK(with(100) == "cuBLAS, expert by expert; at a time: experts 2, tokens 10");
  CHECK(with(60) == "cuBLAS, expert by expert; at a time: experts 1, tokens 10");

  const FakeMemory memory(lanes + 30000);
  try {
    forward_device(device, made.layer, made.weights, routing, x32);
    FAIL("expected an Error");
  } catch (const DeviceMemoryError& error) {
    CHECK(error.text() == "out of memory: 7680 bytes were asked for, 2036 are free");
  }
}

TEST_CASE("The path is chosen by how tokens spread over the experts") {
  const auto path_of = [](const LayerCase& c, const Routing& routing) {
    MoeLayer layer = c.layer;
    layer.experts = c.experts, layer.width = c.width, layer.intermediate = c.intermediate;
    return first_plan(layer, routing).path;
  };
  const LayerCase qwen = qwen3_30b(), oss = gpt_oss_20b();
  CHECK(path_of(qwen, made_routing(qwen, 1)) == kernels::Path::gathered);
  CHECK(path_of(qwen, made_routing(qwen, 16)) == kernels::Path::gathered);
  CHECK(path_of(qwen, made_routing(qwen, 1024)) == kernels::Path::batched);
  CHECK(path_of(oss, made_routing(oss, 8192)) == kernels::Path::batched);
  Routing crowded = made_routing(qwen, 8192);  // half of all choices are one expert's
  for (size_t pair = 0; pair < crowded.experts.size(); pair += 2) crowded.experts[pair] = 0;
  CHECK(path_of(qwen, crowded) == kernels::Path::per_expert);
  CHECK(path_of(qwen, {0, 8, {}, {}}) != kernels::Path::naive);
}

TEST_CASE("Without a module or a card there is a reason, and no device") {
  const FoundDevice none = find_device("/nowhere/libmoelora_cuda.so");
  CHECK(none.device == nullptr);
  CHECK(none.reason.find("/nowhere/libmoelora_cuda.so") != std::string::npos);
  if (!have_fake()) return;
  CHECK(find_device(fake_module()).device->description() ==
        "a card that is not there, 1024.0 GiB, CUDA 13.0, cuBLAS 13.1.0");
  setenv("FAKE_CUDA_NO_DEVICE", "1", 1);
  const FoundDevice no_card = find_device(fake_module());
  unsetenv("FAKE_CUDA_NO_DEVICE");
  CHECK(no_card.device == nullptr);
  CHECK(no_card.reason == "cuda: look for a CUDA device: no CUDA-capable device is detected");
}

}  // namespace moelora::test
