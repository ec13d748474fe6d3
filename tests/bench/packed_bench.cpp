// Times the packed check (lib/compare/packed_check.h) on an adapter of Qwen3-30B-A3B's shape.
//
//   packed_bench FOLDER [ROUNDS] [THREADS] [PACKED SOURCE]
//
// Makes in FOLDER the experts of a LoRA of rank 16 (48 layers, bf16) as PEFT stacks them (192
// tensors), per expert (36,864 tensors), in 3-D tensors, and per expert with the ranks of every
// pair in the reverse order: the same products from other factors. Each case is opened and checked
// ROUNDS times, warm, and after each check both files are read (pread of 1 MB, as many threads) and
// nothing is done with them; the first round is thrown away. Prints a Markdown table of medians;
// PACKED and SOURCE name one case of it: linear, params, stacked, reversed.

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <span>

#include "lib/adapter/init.h"
#include "lib/base/error.h"
#include "lib/base/parallel.h"
#include "lib/compare/packed_check.h"
#include "lib/io/file.h"
#include "lib/io/weights.h"
#include "lib/model/base_model.h"

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
  write_conversion(make_adapter(options), folder, quick(threads));
}

void convert(const std::string& in, const std::string& out, const std::string& to, int threads) {
  PlanOptions options;
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

struct Cost {
  double wall, cpu;  // seconds; user and system time of all threads
};

double cpu_seconds() {
  rusage used{};
  getrusage(RUSAGE_SELF, &used);
  const auto seconds = [](const timeval& t) {
    return static_cast<double>(t.tv_sec) + 1e-6 * static_cast<double>(t.tv_usec);
  };
  return seconds(used.ru_utime) + seconds(used.ru_stime);
}

template <class F>
Cost timed(F&& work) {
  const auto start = std::chrono::steady_clock::now();
  const double cpu = cpu_seconds();
  work();
  const std::chrono::duration<double> took = std::chrono::steady_clock::now() - start;
  return {took.count(), cpu_seconds() - cpu};
}

double median(std::vector<double> values) {
  std::sort(values.begin(), values.end());
  return values[values.size() / 2];
}

struct Costs {
  std::vector<double> wall, cpu;

  void add(const Cost& cost) {
    wall.push_back(cost.wall);
    cpu.push_back(cost.cpu);
  }
  std::string text() const {
    const auto [least, most] = std::minmax_element(wall.begin(), wall.end());
    return fmt::format("{:.3f} ({:.3f}-{:.3f}), {:.2f}", median(wall), *least, *most, median(cpu));
  }
};

void read_whole(const std::string& folder, int threads) {
  constexpr uint64_t kBlock = 1 << 20;
  const FilePtr file = File::open(folder + "/adapter_model.safetensors");
  const uint64_t blocks = (file->size() + kBlock - 1) / kBlock;
  std::vector<std::vector<std::byte>> buffers(
      static_cast<size_t>(threads > 0 ? threads : available_threads()));
  parallel_for(static_cast<int64_t>(blocks), threads, [&](int64_t item, int worker) {
    auto& buffer = buffers[static_cast<size_t>(worker)];
    buffer.resize(kBlock);
    const uint64_t at = static_cast<uint64_t>(item) * kBlock;
    file->read(at, std::min(kBlock, file->size() - at), buffer.data());
  });
}

struct Bench {
  std::string folder;
  int rounds, threads;
  BaseModel base = open_base(kBase);

  std::string at(const std::string& name) const { return folder + "/" + name; }

  packed::Report check(const std::string& packed, const std::string& source) const {
    const Opened one(at(packed)), other(at(source));
    packed::CheckOptions options;
    options.spec = &base.spec;
    options.threads = threads;
    packed::Report out = packed::check_packed(one.input(), other.input(), options);
    if (!out.sound()) throw Error(packed, out.faults.front().text());
    return out;
  }

  void run(const std::string& packed, const std::string& source) const {
    Costs checks, reads;
    packed::Report report;
    for (int round = 0; round <= rounds; ++round) {
      const Cost check_cost = timed([&] { report = check(packed, source); });
      const Cost read_cost = timed([&] {
        read_whole(at(packed), threads);
        read_whole(at(source), threads);
      });
      if (round == 0) continue;
      checks.add(check_cost);
      reads.add(read_cost);
    }
    const auto own = static_cast<double>(bytes_of(at(packed)));
    fmt::print("| {} against {} | {} | {} | {} | {:.2f} | {} | {:.2f} |\n", packed, source,
               report.same_bits, report.same_product, checks.text(),
               own / median(checks.wall) * 1e-9, reads.text(),
               median(checks.wall) / median(reads.wall));
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

using Case = std::pair<const char*, const char*>;
constexpr std::array<Case, 6> kCases = {{{"linear", "params"},
                                         {"params", "linear"},
                                         {"stacked", "linear"},
                                         {"stacked", "params"},
                                         {"reversed", "linear"},
                                         {"reversed", "params"}}};

void run(const Bench& bench, std::span<const Case> cases) {
  make(bench);
  fmt::print(
      "| packed, source | same bits | same product | wall s, CPU s | GB/s of packed | reading "
      "both: "
      "wall s, CPU s | ratio |\n"
      "|---|---|---|---|---|---|---|\n");
  for (const auto& [packed, source] : cases) bench.run(packed, source);
  rusage used{};
  getrusage(RUSAGE_SELF, &used);
  fmt::print("\npeak memory of the process {} MB\n", used.ru_maxrss / 1000);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    fmt::print("usage: packed_bench FOLDER [ROUNDS] [THREADS] [PACKED SOURCE]\n");
    return 2;
  }
  try {
    const Bench bench{argv[1], argc > 2 ? std::atoi(argv[2]) : 5,
                      argc > 3 ? std::atoi(argv[3]) : 0};
    if (argc > 5)
      run(bench, std::array<Case, 1>{{{argv[4], argv[5]}}});
    else
      run(bench, kCases);
  } catch (const std::exception& error) {
    fmt::print(stderr, "packed_bench: {}\n", error.what());
    return 1;
  }
}
