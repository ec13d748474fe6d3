// Times check_forward() on a whole adapter of Qwen3-30B-A3B's shape, r = 16: every projection of
// every expert of every layer, against the same factors held twice. Factors are made before the
// clock starts (they would lie in the page cache); a base of its own for each layer and expert is
// made while it runs, as it would be read. JSON on stdout.
//   forward_check_bench [--device auto|cpu|cuda] [--layers 48] [--base own|stand-in]

#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>

#include "lib/adapter/random_source.h"
#include "lib/base/cast.h"
#include "lib/base/parallel.h"
#include "lib/compare/forward_check.h"
#include "lib/model/base_model.h"
#include "tests/bench/run_record.h"
#include "tests/numeric/made_layer.h"

using namespace moelora;
using namespace moelora::test;

namespace {

struct Options {
  DeviceChoice device = DeviceChoice::automatic;
  int layers = 48;
  bool own_base = true;
};

Options parse(int argc, char** argv) {
  Options out;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string key = argv[i], value = argv[i + 1];
    if (key == "--device" && value == "cpu") out.device = DeviceChoice::cpu;
    if (key == "--device" && value == "cuda") out.device = DeviceChoice::cuda;
    if (key == "--layers") out.layers = std::atoi(value.c_str());
    if (key == "--base") out.own_base = value == "own";
  }
  return out;
}

// Random factors evaluated into memory.
Adapter held(Adapter adapter) {
  std::vector<Tensor*> parts;
  for (auto& entry : adapter.experts)
    for (Factor* factor : {&entry.second.a, &entry.second.b})
      for (Tensor& part : factor->parts) parts.push_back(&part);
  parallel_for(static_cast<int64_t>(parts.size()), 0, [&](int64_t i, int) {
    Tensor& t = *parts[static_cast<size_t>(i)];
    t = Tensor(std::make_shared<MemorySource>(t.dtype(), t.read()), t.shape());
  });
  return adapter;
}

// A checkpoint of random BF16 experts, under the names of the hub's files.
TensorMap random_base(const ModelSpec& spec, int layers) {
  TensorMap out;
  const auto add = [&](const std::string& name, int64_t rows, int64_t columns) {
    const SourcePtr numbers =
        random_source(0, name, rows * columns, std::sqrt(3.0 / static_cast<double>(columns)));
    out[name + ".weight"] = Tensor(cast_source(numbers, DType::BF16), {rows, columns});
  };
  for (int layer = 0; layer < layers; ++layer) {
    const std::string stem = spec.expert_stem(Form::hub, layer);
    for (int64_t e = 0; e < spec.experts; ++e) {
      for (const std::string& name : {spec.hub.gate, spec.hub.up})
        add(fmt::format("{}.{}.{}", stem, e, name), spec.intermediate, spec.expert_in);
      add(fmt::format("{}.{}.{}", stem, e, spec.hub.down), spec.expert_in, spec.intermediate);
    }
  }
  return out;
}

double seconds_since(std::chrono::steady_clock::time_point begin) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

Json run(const Options& options, StageReport& report) {
  const BaseModel model = open_base("Qwen/Qwen3-30B-A3B");
  const Adapter adapter = held(made_adapter(qwen3_30b(), options.layers));
  const TensorMap weights = random_base(model.spec, options.layers);
  ForwardBase base;
  if (options.own_base) base = {&weights, &model.spec, "random weights"};
  ForwardCheckOptions how;
  how.where = open_device(options.device);
  const auto begin = std::chrono::steady_clock::now();
  report = check_forward(adapter, adapter, moe_layer(model.spec, model.config), base, how);
  const double seconds = seconds_since(begin);
  return Json::object({{"layers", Json(report.layers)},
                       {"tokens", Json(report.tokens)},
                       {"deltas", Json(report.deltas)},
                       {"base", Json(report.base)},
                       {"threads", Json(available_threads())},
                       {"differences", Json(static_cast<int64_t>(report.differences.size()))},
                       {"relative", Json(report.relative)},
                       {"seconds", Json(seconds)}});
}

}  // namespace

int main(int argc, char** argv) {
  try {
    StageReport report;
    const Json result = run(parse(argc, argv), report);
    Json::Members out =
        bench::run_record("moelora.forward-check-bench/1", argc, argv, report.device);
    out.emplace_back("result", result);
    std::printf("%s\n", Json::object(std::move(out)).dump().c_str());
    return report.differences.empty() ? 0 : 1;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "forward_check_bench: %s\n", error.what());
    return 2;
  }
}
