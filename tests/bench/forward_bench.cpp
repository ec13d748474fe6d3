// Times the CUDA forward of one MoE layer with LoRA: every path of the module and the one that is
// chosen by itself ("auto"), recorded as a CUDA graph and not, at 1 to 8192 tokens. Weights and
// tokens are random; four routings in turn, so that no run finds its inputs in a cache. JSON on
// stdout, microseconds on the device.
//   forward_bench [--shape gpt-oss-20b|Qwen3-30B-A3B] [--tokens 1,16] [--count 20]

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <sstream>

#include "lib/io/json.h"
#include "lib/numeric/device_forward.h"
#include "tests/bench/run_record.h"
#include "tests/numeric/batch_time.h"
#include "tests/numeric/made_layer.h"

using namespace moelora;
using namespace moelora::test;

namespace {

struct Options {
  std::string shape;  // "" for both
  std::vector<int64_t> tokens = {1, 16, 128, 1024, 8192};
  int count = 20;
};

Options parse(int argc, char** argv) {
  Options out;
  for (int i = 1; i + 1 < argc; i += 2) {
    const std::string key = argv[i], value = argv[i + 1];
    if (key == "--shape") out.shape = value;
    if (key == "--count") out.count = std::atoi(value.c_str());
    if (key != "--tokens") continue;
    out.tokens.clear();
    std::stringstream list(value);
    for (std::string item; std::getline(list, item, ',');) out.tokens.push_back(std::stoll(item));
  }
  return out;
}

struct Way {
  std::string name;
  std::optional<kernels::Path> path;  // not set: the one chosen for the routing
  int32_t streams;
  bool graph;
};

std::vector<Way> ways() {
  std::vector<Way> out;
  for (const bool graph : {true, false}) {
    const std::string suffix = graph ? " graph" : "";
    out.push_back({"auto" + suffix, std::nullopt, 8, graph});
    for (const int32_t streams : {4, 8, 16})
      out.push_back({fmt::format("per_expert {} streams{}", streams, suffix),
                     kernels::Path::per_expert, streams, graph});
    out.push_back({"gathered" + suffix, kernels::Path::gathered, 1, graph});
    out.push_back({"batched" + suffix, kernels::Path::batched, 1, graph});
  }
  return out;
}

Json numbers(const std::vector<float>& times) {
  std::vector<float> sorted = times;
  std::sort(sorted.begin(), sorted.end());
  const auto at = [&](size_t i) { return Json(std::round(double{sorted[i]} * 10) / 10); };
  return Json::object(
      {{"median", at(sorted.size() / 2)}, {"min", at(0)}, {"max", at(sorted.size() - 1)}});
}

class Bench {
 public:
  Bench(Device& device, const LayerCase& c, const Options& options)
      : device_(device), case_(c), options_(options), made_(held_in_memory(made_layer(c))) {}

  Json run() {
    const auto begin = std::chrono::steady_clock::now();
    const DeviceLayer layer(device_, made_.layer, made_.weights, {0, case_.experts});
    const std::chrono::duration<double> loading = std::chrono::steady_clock::now() - begin;
    std::vector<Json> rows;
    for (const int64_t tokens : options_.tokens) {
      rows.push_back(row(layer, tokens));
      std::fprintf(stderr, "%s %s\n", case_.name.c_str(), rows.back().dump(-1).c_str());
    }
    return Json::object({{"shape", Json(case_.name)},
                         {"experts", Json(case_.experts)},
                         {"top_k", Json(case_.top_k)},
                         {"width", Json(case_.width)},
                         {"intermediate", Json(case_.intermediate)},
                         {"rank", Json(case_.rank)},
                         {"load_s", Json(loading.count())},
                         {"rows", Json::array(std::move(rows))}});
  }

 private:
  struct Input {
    Routing routing;
    std::vector<float> x;
  };

  Json row(const DeviceLayer& layer, int64_t tokens) const {
    std::vector<Input> inputs;
    for (uint64_t seed = 0; seed < 4; ++seed) {
      const std::vector<double> x = made_tokens(case_, tokens, seed);
      inputs.push_back({made_routing(case_, tokens, seed), {x.begin(), x.end()}});
    }
    Json::Members times;
    for (const Way& way : ways()) times.emplace_back(way.name, time(layer, inputs, way));
    const DevicePlan chosen = first_plan(made_.layer, inputs[0].routing);
    return Json::object({{"tokens", Json(tokens)},
                         {"chosen", Json(to_string(chosen))},
                         {"microseconds", Json::object(std::move(times))}});
  }

  Json time(const DeviceLayer& layer, const std::vector<Input>& inputs, const Way& way) const {
    try {
      std::vector<std::unique_ptr<DeviceBatch>> batches;
      std::vector<DeviceBatch*> pointers;
      for (const Input& input : inputs) {
        const auto path = way.path ? *way.path : first_plan(made_.layer, input.routing).path;
        const kernels::Plan plan{path, way.streams, way.graph, false};
        batches.push_back(std::make_unique<DeviceBatch>(layer, input.routing, input.x, plan));
        pointers.push_back(batches.back().get());
      }
      return numbers(batch_time(pointers, 4, options_.count));
    } catch (const Error& error) {
      return Json(error.what());
    }
  }

  Device& device_;
  const LayerCase& case_;
  const Options& options_;
  MadeLayer made_;
};

}  // namespace

int main(int argc, char** argv) {
  try {
    const Options options = parse(argc, argv);
    Device device;
    std::vector<Json> results;
    for (const LayerCase& c : {gpt_oss_20b(), qwen3_30b()})
      if (options.shape.empty() || options.shape == c.name)
        results.push_back(Bench(device, c, options).run());
    Json::Members out =
        bench::run_record("moelora.forward-bench/1", argc, argv, device.description());
    out.emplace_back("results", Json::array(std::move(results)));
    std::printf("%s\n", Json::object(std::move(out)).dump().c_str());
    return 0;
  } catch (const std::exception& error) {
    std::fprintf(stderr, "forward_bench: %s\n", error.what());
    return 2;
  }
}
