// The real module on a real card; skipped, with the reason, where there is none, unless
// $MOELORA_REQUIRE_CARD is set. Runs from any folder with nothing but the module
// (MOELORA_CUDA_MODULE, or beside the executable).

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>

#include "tests/numeric/device_cases.h"

namespace moelora::test {
namespace {

// Null, with a message, without a card.
std::shared_ptr<Device> card() {
  static const FoundDevice found = find_device();
  if (found.device != nullptr) return found.device;
  if (std::getenv("MOELORA_REQUIRE_CARD") != nullptr) FAIL(found.reason);
  MESSAGE("skipped: " << found.reason);
  return nullptr;
}

void check_ugly(int64_t tokens) {
  const std::shared_ptr<Device> device = card();
  if (device == nullptr) return;
  MESSAGE(device->description());
  for (const LayerCase& c : ugly_cases())
    check_all_paths(*device, c, held_in_memory(made_layer(c)), tokens);
}

void check_large(const LayerCase& whole, int64_t tokens) {
  const std::shared_ptr<Device> device = card();
  if (device == nullptr) return;
  for (const bool shared : {false, true}) {
    LayerCase c = whole;
    c.shared_outer = shared;
    check_all_paths(*device, c, held_in_memory(made_layer(c)), tokens);
  }
}

// Values of -1, 0 and 1 throughout: every sum is a whole number below 2^24 and must be exact,
// whatever the order tensor cores add in.
MadeLayer small_integers(const LayerCase& c) {
  MadeLayer out = held_in_memory(made_layer(c));
  const auto round = [](std::vector<Tensor>& tensors) {
    for (Tensor& tensor : tensors) {
      const std::vector<std::byte> bytes = tensor.read();
      std::vector<float> values(static_cast<size_t>(tensor.elements()));
      for (size_t i = 0; i < values.size(); ++i)
        values[i] = static_cast<float>(static_cast<int>(bytes[2 * i]) % 3 - 1);
      tensor = Tensor::of_f32(tensor.shape(), values);
    }
  };
  for (auto& entry : out.weights.base.weights) round(entry.second);
  for (auto& entry : out.weights.lora) {
    round(entry.second.a.parts);
    round(entry.second.b.parts);
  }
  return out;
}

}  // namespace

TEST_SUITE("card") {
  TEST_CASE("On the card every path is within the bound: ugly shapes, 1 token") { check_ugly(1); }

  TEST_CASE("On the card every path is within the bound: ugly shapes, 7 tokens") { check_ugly(7); }

  TEST_CASE("On the card every path is within the bound: ugly shapes, 129 tokens") {
    check_ugly(129);
  }

  TEST_CASE("On the card every path is within the bound: gpt-oss-20b") {
    check_large(gpt_oss_20b(), 129);
  }

  TEST_CASE("On the card every path is within the bound: Qwen3-30B-A3B") {
    check_large(qwen3_30b(), 129);
  }

  TEST_CASE("On the card sums of small whole numbers are exact") {
    const std::shared_ptr<Device> device = card();
    if (device == nullptr) return;
    LayerCase c;
    c.width = 512, c.intermediate = 256, c.rank = 16;
    const MadeLayer made = small_integers(c);
    const Routing routing = made_routing(c, 33);
    std::vector<float> x(size_t{33} * 512);
    for (size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i * 7 % 3) - 1;
    const MoeStages<double> exact = forward_cpu<double>(made.layer, made.weights, routing,
                                                        std::vector<double>(x.begin(), x.end()));
    for (const kernels::Path path :
         {kernels::Path::per_expert, kernels::Path::gathered, kernels::Path::batched}) {
      DeviceForwardOptions options;
      options.path = path;
      options.keep_delta = true;
      const MoeStages<float> stages =
          forward_device(*device, made.layer, made.weights, routing, x, options).stages;
      for (const Projection p : {Projection::gate, Projection::up}) {
        const auto equal = [](const std::vector<float>& a, const std::vector<double>& b) {
          return std::equal(a.begin(), a.end(), b.begin(), b.end());
        };
        CHECK(equal(stages.projections.at(p).base, exact.projections.at(p).base));
        CHECK(equal(stages.projections.at(p).rank, exact.projections.at(p).rank));
      }
    }
  }

  TEST_CASE("On the card the same plan gives the same bits, recorded or not, every time") {
    const std::shared_ptr<Device> device = card();
    if (device == nullptr) return;
    LayerCase c = qwen3_30b();
    c.experts = 24;
    const MadeLayer made = held_in_memory(made_layer(c));
    const Routing routing = made_routing(c, 50);
    const std::vector<double> x = made_tokens(c, 50);
    const std::vector<float> x32(x.begin(), x.end());
    const DeviceLayer layer(*device, made.layer, made.weights, {0, c.experts});
    for (const kernels::Path path :
         {kernels::Path::per_expert, kernels::Path::gathered, kernels::Path::batched}) {
      DeviceBatch plain(layer, routing, x32, {path, 8, false, false});
      DeviceBatch recorded(layer, routing, x32, {path, 8, true, false});
      plain.run();
      recorded.run();
      const std::vector<float> first = plain.out();
      CHECK(recorded.out() == first);
      for (int repeat = 0; repeat < 5; ++repeat) {
        plain.run();
        recorded.run();
        CHECK(plain.out() == first);
        CHECK(recorded.out() == first);
      }
    }
  }

  TEST_CASE("A layer too large for the card is an error that says how much was asked for") {
    const std::shared_ptr<Device> device = card();
    if (device == nullptr) return;
    kernels::LayerShape shape = {};
    shape.experts = 60000, shape.width = 1 << 16, shape.intermediate = 1 << 16;
    shape.gated = true;
    kernels::Layer* layer = nullptr;
    kernels::Failure failure;
    const auto status = device->api().layer_create(device->context(), &shape, &layer, &failure);
    CHECK(status == kernels::Status::out_of_memory);
    CHECK(failure.bytes == uint64_t{60000} * (2u << 16) * (1u << 16) * 2);
    CHECK(failure.bytes_free > 0);
    CHECK(layer == nullptr);
  }
}

}  // namespace moelora::test
