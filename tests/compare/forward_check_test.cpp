#include "lib/compare/forward_check.h"

#include <doctest/doctest.h>

#include <functional>
#include <limits>

#include "lib/adapter/adapter_file.h"
#include "lib/adapter/gate_up.h"
#include "lib/base/cast.h"
#include "lib/base/error.h"
#include "lib/io/weights.h"
#include "tests/numeric/fake_device.h"
#include "tests/numeric/made_layer.h"

namespace moelora::test {
namespace {

const std::string kData = MOELORA_TEST_DATA;

LayerCase square_case() {  // H == I: shapes do not show the roles
  LayerCase c;
  c.experts = 12, c.width = c.intermediate = 48, c.rank = c.down_rank = 3;
  return c;
}

ForwardCheckOptions on_cpu() { return {}; }

ForwardCheckOptions on_fake() {
  ForwardCheckOptions out;
  if (!fake_module().empty()) out.where = open_device(DeviceChoice::cuda, fake_module());
  return out;
}

StageReport check(const Adapter& packed, const Adapter& source,
                  const ForwardCheckOptions& options = on_cpu()) {
  return check_forward(packed, source, layer_of(source), {}, options);
}

using Change = std::function<void(Adapter&)>;

StageReport after(const Change& change, const ForwardCheckOptions& options = on_cpu()) {
  const Adapter source = made_adapter(square_case(), 2);
  Adapter packed = source;
  change(packed);
  return check(packed, source, options);
}

ExpertPair& pair_of(Adapter& adapter, Projection p) { return adapter.experts.at({1, p}); }

Factor cast_to(DType dtype, const Factor& factor) {
  Factor out = factor;
  for (Tensor& t : out.parts)
    t = t.map_sources(dtype, [&](const SourcePtr& s) { return cast_source(s, dtype); });
  return out;
}

Tensor changed(const Tensor& tensor, const std::function<void(std::vector<float>&)>& change) {
  const std::vector<double> values = read_double(tensor);
  std::vector<float> floats(values.begin(), values.end());
  change(floats);
  Tensor out = Tensor::of_f32(tensor.shape(), floats);
  return out.map_sources(DType::BF16,
                         [](const SourcePtr& s) { return cast_source(s, DType::BF16); });
}

// Every difference is on layer 1 and on `p`, one for each of `experts`.
void check_found(const StageReport& report, Projection p, const std::vector<int64_t>& experts) {
  REQUIRE(report.differences.size() == experts.size());
  for (size_t i = 0; i < experts.size(); ++i) {
    CHECK(report.differences[i].layer == 1);
    CHECK(report.differences[i].projection == p);
    CHECK(report.differences[i].expert == experts[i]);
    CHECK(report.differences[i].worst > 1);
  }
}

std::vector<int64_t> all_experts() {
  std::vector<int64_t> out;
  for (int64_t e = 0; e < square_case().experts; ++e) out.push_back(e);
  return out;
}

}  // namespace

TEST_CASE("An adapter computes what it computes itself, on the CPU and through the CUDA module") {
  for (const LayerCase& c : ugly_cases()) {
    if (c.rank == 0) continue;
    CAPTURE(c.name);
    const Adapter adapter = made_adapter(c, 2);
    MoeLayer layer = c.layer;
    layer.experts = c.experts, layer.width = c.width, layer.intermediate = c.intermediate;
    for (const ForwardCheckOptions& options : {on_cpu(), on_fake()}) {
      const StageReport report = check_forward(adapter, adapter, layer, {}, options);
      CHECK(report.differences.empty());
      CHECK(report.layers == 2);
      CHECK(report.deltas == 2 * c.experts * ((c.layer.gated ? 2 : 1) + (c.down_rank > 0 ? 1 : 0)));
      CHECK(report.worst > 0);
      CHECK(report.relative < (options.where.device != nullptr ? 5e-3 : 1e-6));
      CHECK(report.base == "synthetic, seed 0");
    }
  }
}

TEST_CASE("Faults that leave every shape as it was are found, at their place") {
  for (const ForwardCheckOptions& options : {on_cpu(), on_fake()}) {
    CHECK(after([](Adapter&) {}, options).differences.empty());
    const auto exchange = [&](Projection p, size_t i, size_t j) {
      return after(
          [=](Adapter& a) {
            std::swap(pair_of(a, p).a.parts[i], pair_of(a, p).a.parts[j]);
            std::swap(pair_of(a, p).b.parts[i], pair_of(a, p).b.parts[j]);
          },
          options);
    };
    check_found(exchange(Projection::down, 3, 7), Projection::down, {3, 7});
    const auto rescaled = [](double by) {
      return [=](Adapter& a) { pair_of(a, Projection::up).scaling[0].alpha *= by; };
    };
    check_found(after(rescaled(2), options), Projection::up, all_experts());
    check_found(after(rescaled(0.9), options), Projection::up, all_experts());
    const auto sign = [](Adapter& a) {
      Tensor& b = pair_of(a, Projection::gate).b.parts[5];
      b = changed(b, [](std::vector<float>& values) { values[17] = -values[17]; });
    };
    check_found(after(sign, options), Projection::gate, {5});
    const auto transposed = [](Adapter& a) {  // A and B exchanged: H == I
      ExpertPair& down = pair_of(a, Projection::down);
      for (size_t e = 0; e < down.a.parts.size(); ++e) {
        const Tensor was = down.a.parts[e];
        down.a.parts[e] = down.b.parts[e].transpose(0, 1);
        down.b.parts[e] = was.transpose(0, 1);
      }
    };
    check_found(after(transposed, options), Projection::down, all_experts());
  }
}

TEST_CASE("Gate and up exchanged are found on both") {
  const StageReport report = after(
      [](Adapter& a) { std::swap(pair_of(a, Projection::gate), pair_of(a, Projection::up)); });
  CHECK(report.differences.size() == 24);
  CHECK(report.differences.front().relative > 1);
  CHECK(report.deltas == 72);
}

TEST_CASE("What one of the two does not have counts whole") {
  const auto without = [](Adapter& a) { a.experts.erase({1, Projection::down}); };
  const StageReport lost = after(without);
  check_found(lost, Projection::down, all_experts());
  CHECK(lost.differences[0].relative == 1);
  CHECK(lost.differences[0].worst == kBeyond);

  const Adapter whole = made_adapter(square_case(), 2);
  Adapter part = whole;
  without(part);
  check_found(check(whole, part), Projection::down, all_experts());
  for (const Projection p : {Projection::gate, Projection::up}) part.experts.erase({1, p});
  CHECK(check(part, whole).differences.size() == 36);

  check_found(after([](Adapter& a) {
                pair_of(a, Projection::up).a.parts[4] = Tensor();
                pair_of(a, Projection::up).b.parts[4] = Tensor();
              }),
              Projection::up, {4});
}

TEST_CASE("NaNs are differences, not matches") {
  check_found(after([](Adapter& a) {
                Tensor& b = pair_of(a, Projection::gate).b.parts[2];
                b = changed(b, [](std::vector<float>& values) {
                  values[0] = std::numeric_limits<float>::quiet_NaN();
                });
              }),
              Projection::gate, {2});
}

TEST_CASE("Other factors of the same product are the same adapter") {
  CHECK(after([](Adapter& a) {
          ExpertPair& up = pair_of(a, Projection::up);
          for (size_t e = 0; e < up.a.parts.size(); ++e) {
            up.a.parts[e] = pad_rank(up.a.parts[e], Side::A, 8);
            up.b.parts[e] = pad_rank(up.b.parts[e], Side::B, 8);
          }
          up.scaling[0] = up.scaling[0].with_rank(8);
        }).differences.empty());
  CHECK(after([](Adapter& a) { fuse_gate_up(a, GateUpOrder::interleaved); }).differences.empty());
}

TEST_CASE("A cast is rounding, for which a wrong scale is not taken") {
  const Adapter bf16 = made_adapter(square_case(), 1);
  Adapter source = bf16;
  for (auto& entry : source.experts) {  // values that BF16 does not have
    for (Tensor& t : entry.second.b.parts) {
      const std::vector<double> values = read_double(t);
      std::vector<float> floats(values.begin(), values.end());
      for (float& v : floats) v *= 1.0F / 3;
      t = Tensor::of_f32(t.shape(), floats);
    }
  }
  const auto cast = [&](DType dtype) {
    Adapter out = source;
    for (auto& entry : out.experts) {
      entry.second.a = cast_to(dtype, entry.second.a);
      entry.second.b = cast_to(dtype, entry.second.b);
    }
    return out;
  };
  for (const DType dtype : {DType::BF16, DType::F16}) {
    const StageReport report = check(cast(dtype), source);
    CHECK(report.differences.empty());
    CHECK(report.relative > 1e-5);
    CHECK(report.worst < 1);
    if (!fake_module().empty()) CHECK(check(cast(dtype), source, on_fake()).differences.empty());
  }
  Adapter scaled = cast(DType::BF16);
  for (auto& entry : scaled.experts) entry.second.scaling[0].alpha *= 1.02;
  CHECK(check(scaled, source).differences.size() == 36);
}

TEST_CASE("A peer's adapter in two layouts is one adapter, over its base's own weights") {
  const std::string family = kData + "/gpt_oss";
  LoadOptions load;
  load.base = family + "/base";
  const LoadedAdapter params = load_adapter(family + "/peft_params", load);
  const LoadedAdapter grouped = load_adapter(family + "/peft_params_grouped_b", load);
  const Weights weights = open_weights(load.base, {"model"});
  const ModelSpec& spec = params.base->spec;
  const MoeLayer layer = moe_layer(spec, params.base->config);
  const ForwardBase base{&weights.tensors, &spec, "models/tiny"};
  const StageReport same = check_forward(grouped.adapter, params.adapter, layer, base, on_cpu());
  CHECK(same.differences.empty());
  CHECK(same.base == "BF16 of models/tiny");
  CHECK(same.layers == 2);
  const LoadedAdapter other = load_adapter(family + "/peft_params_rslora", load);
  CHECK(!check_forward(other.adapter, params.adapter, layer, base, on_cpu()).differences.empty());
}

TEST_CASE("The report says where it ran, and a card that is not there is said or refused") {
  const Adapter adapter = made_adapter(square_case(), 1);
  const std::string nowhere = "/nowhere/libmoelora_cuda.so";
  ForwardCheckOptions options;
  options.where = open_device(DeviceChoice::automatic, nowhere);
  const StageReport automatic = check(adapter, adapter, options);
  CHECK(automatic.device == "CPU, float");
  CHECK(automatic.why_cpu.find(nowhere) != std::string::npos);
  options.where = open_device(DeviceChoice::cpu, nowhere);
  CHECK(check(adapter, adapter, options).why_cpu.empty());
  CHECK_THROWS_AS(open_device(DeviceChoice::cuda, nowhere), Error);
  if (fake_module().empty()) return;
  CHECK(check(adapter, adapter, on_fake()).device ==
        "a card that is not there, 1024.0 GiB, CUDA 13.0, cuBLAS 13.1.0 (cuBLAS, experts as one "
        "batch; at a time: experts 12, tokens 6)");
}

TEST_CASE("An adapter's own sizes make a layer where no base says them") {
  LayerCase c = square_case();
  c.intermediate = 20;
  const MoeLayer layer = layer_of(made_adapter(c, 1));
  CHECK(layer.experts == 12);
  CHECK(layer.width == 48);
  CHECK(layer.intermediate == 20);
  CHECK(layer.gated);
  CHECK_THROWS_AS(layer_of(Adapter()), Error);
}

}  // namespace moelora::test
