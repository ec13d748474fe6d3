// Times scan_values: GB/s of NaN, Inf, zero, largest value and rounding in one pass, from the page
// cache.
//
//   value_bench FOLDER [ROUNDS] [THREADS]
//
// Makes in FOLDER one file a dtype (512 MB each, in tensors of 32 MB), and one of 36,864 small
// tensors; every round scans each once, the first round is thrown away. Prints a Markdown table of
// medians.

#include <fmt/format.h>
#include <sys/resource.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <random>

#include "lib/base/error.h"
#include "lib/io/tensor_writer.h"
#include "lib/io/weights.h"
#include "lib/numeric/stats/value_stats.h"

using namespace moelora;
namespace fs = std::filesystem;

namespace {

// Values of one binade around 0.01: random signs and mantissas.
struct Bits {
  uint64_t random, fixed;
};

Bits bits_of(DType dtype) {
  if (dtype == DType::F32) return {0x807FFFFF807FFFFF, 0x3C0000003C000000};
  if (dtype == DType::F64) return {0x800FFFFFFFFFFFFF, 0x3F80000000000000};
  if (dtype == DType::F16) return {0x83FF83FF83FF83FF, 0x2000200020002000};
  return {0x807F807F807F807F, 0x3C003C003C003C00};
}

Tensor noise(DType dtype, const Shape& shape, uint64_t seed) {
  std::vector<std::byte> bytes(Tensor::zeros(dtype, shape).bytes());
  std::mt19937_64 rng(seed);
  const Bits bits = bits_of(dtype);
  for (size_t at = 0; at < bytes.size(); at += 8) {
    const uint64_t word = (rng() & bits.random) | bits.fixed;
    std::copy_n(reinterpret_cast<const std::byte*>(&word), 8, bytes.data() + at);
  }
  return Tensor(std::make_shared<MemorySource>(dtype, std::move(bytes)), shape);
}

TensorMap large(DType dtype) {
  TensorMap out;
  const Tensor one = noise(dtype, {4096, (32 << 20) / 4096 / dtype_bytes(dtype)}, 1);
  for (int i = 0; i < 16; ++i) out.emplace(fmt::format("layer.{:02}", i), one);
  return out;
}

TensorMap small() {
  TensorMap out;
  const Tensor a = noise(DType::BF16, {16, 2048}, 2), b = noise(DType::BF16, {768, 16}, 3);
  for (int i = 0; i < 36864; ++i) out.emplace(fmt::format("expert.{:05}", i), i % 2 == 0 ? a : b);
  return out;
}

struct Case {
  std::string name, folder;
  uint64_t bytes = 0;
  std::vector<double> seconds = {};
};

Case make(const std::string& folder, const std::string& name, const TensorMap& tensors) {
  Case made{name, folder + "/" + name};
  for (const auto& entry : tensors) made.bytes += entry.second.bytes();
  if (fs::exists(made.folder)) return made;
  OutputFolder out(made.folder, {}, {false, false});
  write_weights(out, "adapter_model", tensors, {});
  out.commit("adapter_config.json", "{}\n");
  return made;
}

double time_scan(const Case& c, int threads) {
  const Weights weights = open_weights(c.folder, {"adapter_model"});
  const auto start = std::chrono::steady_clock::now();
  scan_values(weights.tensors, threads);
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void run(const std::string& folder, int rounds, int threads) {
  fs::create_directories(folder);
  std::vector<Case> cases = {
      make(folder, "F32", large(DType::F32)), make(folder, "BF16", large(DType::BF16)),
      make(folder, "F16", large(DType::F16)), make(folder, "F64", large(DType::F64)),
      make(folder, "36864_small_BF16", small())};
  for (int round = 0; round <= rounds; ++round)
    for (Case& c : cases) {
      const double seconds = time_scan(c, threads);
      if (round > 0) c.seconds.push_back(seconds);
    }
  fmt::print("| values | GB | s, median [range] | GB/s |\n|---|---|---|---|\n");
  for (Case& c : cases) {
    std::sort(c.seconds.begin(), c.seconds.end());
    const double median = c.seconds[c.seconds.size() / 2], gb = static_cast<double>(c.bytes) / 1e9;
    fmt::print("| {} | {:.2f} | {:.3f} [{:.3f}-{:.3f}] | {:.1f} |\n", c.name, gb, median,
               c.seconds.front(), c.seconds.back(), gb / median);
  }
  rusage usage{};
  getrusage(RUSAGE_SELF, &usage);
  fmt::print("\n{} threads; peak RSS {} MB\n", threads, usage.ru_maxrss / 1000);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    if (argc < 2) throw Error("value_bench", "name a folder");
    run(argv[1], argc > 2 ? std::atoi(argv[2]) : 5, argc > 3 ? std::atoi(argv[3]) : 1);
  } catch (const Error& error) {
    fmt::print(stderr, "value_bench: error: {}\n", error.what());
    return 2;
  }
}
