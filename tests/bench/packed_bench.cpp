// Times the packed check (lib/numeric/packed_check.h) on an adapter of Qwen3-30B-A3B's shape.
//
//   packed_bench FOLDER [ROUNDS] [THREADS]
//
// Makes in FOLDER the experts of a LoRA of rank 16 (48 layers, bf16) as PEFT stacks them (192
// tensors), per expert (36,864 tensors), in 3-D tensors, and per expert with the ranks of every
// pair in the reverse order: the same products from other factors. Each case is opened and checked
// ROUNDS times, warm; the first round is thrown away. Prints a Markdown table of medians.

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>

#include "lib/adapter/init.h"
#include "lib/base/error.h"
#include "lib/io/weights.h"
#include "lib/numeric/packed_check.h"

using namespace moelora;
namespace fs = std::filesystem;

namespace {

constexpr const char* kBase = "Qwen/Qwen3-30B-A3B";

WriteFolderOptions quick(int threads) {
  WriteFolderOptions out;
  out.output.durable = false;
  out.weights.threads = threads;
  return out;
}

void make_stacked(const std::string& folder, int threads) {
  InitOptions options;
  options.base = kBase;
  options.rank = 16;
  options.alpha = 32;
  options.targets = {"experts"};
  options.to = "peft-params";
  options.random_b = true;
  options.dtype = DType::BF16;
  write_adapter(make_adapter(options), folder, quick(threads));
}

void convert(const std::string& in, const std::string& out, const std::string& to, int threads) {
  ConvertOptions options;
  options.to = to;
  options.load.base = kBase;
  write_conversion(plan_conversion(in, options), out, quick(threads));
}

Tensor reversed(const Tensor& t, int dim) {
  std::vector<Tensor> parts;
  for (int64_t i = t.dim(dim); i-- > 0;) parts.push_back(t.slice(dim, i, 1));
  return Tensor::concat(dim, parts);
}

void reverse_ranks(const std::string& in, const std::string& out, int threads) {
  TensorMap tensors;
  const Weights weights = open_weights(in, {"adapter_model"});
  for (const auto& [name, tensor] : weights.tensors)
    tensors.emplace(name, reversed(tensor, name.find("lora_A") != std::string::npos ? 0 : 1));
  OutputFolder folder(out, {}, {false, false});
  WriteOptions options;
  options.threads = threads;
  write_weights(folder, "adapter_model", tensors, options);
  folder.commit("adapter_config.json", read_json_file(in + "/adapter_config.json").dump() + "\n");
}

struct Opened {
  Weights weights;
  Json config;

  explicit Opened(const std::string& folder)
      : weights(open_weights(folder, {"adapter_model"})),
        config(read_json_file(folder + "/adapter_config.json")) {}

  packed::AdapterInput input() const { return {weights.tensors, config, "bench", {}}; }
};

uint64_t bytes_of(const std::string& folder) {
  return fs::file_size(folder + "/adapter_model.safetensors");
}

struct Bench {
  std::string folder;
  int rounds, threads;
  BaseModel base = open_base(kBase);

  std::string at(const std::string& name) const { return folder + "/" + name; }

  void run(const std::string& packed, const std::string& source) const {
    std::vector<double> seconds;
    packed::Report report;
    for (int round = 0; round <= rounds; ++round) {
      const auto start = std::chrono::steady_clock::now();
      const Opened one(at(packed)), other(at(source));
      packed::CheckOptions options;
      options.spec = &base.spec;
      options.threads = threads;
      report = packed::check_packed(one.input(), other.input(), options);
      if (!report.sound()) throw Error(packed, report.faults.front().text());
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
      if (round > 0) seconds.push_back(took.count());
    }
    std::sort(seconds.begin(), seconds.end());
    const double median = seconds[seconds.size() / 2];
    const auto own = static_cast<double>(bytes_of(at(packed)));
    const auto both = own + static_cast<double>(bytes_of(at(source)));
    fmt::print("| {} against {} | {} | {} | {:.3f} ({:.3f}–{:.3f}) | {:.2f} | {:.2f} |\n", packed,
               source, report.same_bits, report.same_product, median, seconds.front(),
               seconds.back(), own / median * 1e-9, both / median * 1e-9);
    std::fflush(stdout);
  }
};

void make(const Bench& bench) {
  fs::create_directories(bench.folder);
  if (!fs::exists(bench.at("params"))) make_stacked(bench.at("params"), bench.threads);
  for (const auto& [name, layout] :
       {std::pair("linear", "peft-linear"), std::pair("stacked", "stacked")})
    if (!fs::exists(bench.at(name)))
      convert(bench.at("params"), bench.at(name), layout, bench.threads);
  if (!fs::exists(bench.at("reversed")))
    reverse_ranks(bench.at("linear"), bench.at("reversed"), bench.threads);
}

void run(const Bench& bench) {
  make(bench);
  fmt::print(
      "| packed, source | same bits | same product | wall s | GB/s of packed | GB/s of both |\n"
      "|---|---|---|---|---|---|\n");
  bench.run("linear", "params");
  bench.run("params", "linear");
  bench.run("stacked", "linear");
  bench.run("stacked", "params");
  bench.run("reversed", "linear");
  bench.run("reversed", "params");
  rusage used{};
  getrusage(RUSAGE_SELF, &used);
  fmt::print("\npeak memory of the process {} MB\n", used.ru_maxrss / 1000);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    fmt::print("usage: packed_bench FOLDER [ROUNDS] [THREADS]\n");
    return 2;
  }
  try {
    run({argv[1], argc > 2 ? std::atoi(argv[2]) : 5, argc > 3 ? std::atoi(argv[3]) : 0});
  } catch (const std::exception& error) {
    fmt::print(stderr, "packed_bench: {}\n", error.what());
    return 1;
  }
}
