// Times write_weights alone, without reading headers or deciding names, against cp and dd.
//
//   write_bench FOLDER [ROUNDS] [THREADS]
//
// Makes in FOLDER the experts of a Qwen3-30B-A3B LoRA of rank 16 as PEFT stacks them (48 layers,
// bf16, 1.26 GB) and writes them per expert, back, and per expert again (a copy under new names).
// Every round runs each contender once, in turn, into a new file, warm, with and without fsync;
// the first round is thrown away. Prints a Markdown table of medians, as convert_bench.py does.

#include <fmt/format.h>
#include <sys/resource.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <functional>
#include <random>

#include "lib/base/error.h"
#include "lib/io/tensor_writer.h"
#include "lib/io/weights.h"

using namespace moelora;
namespace fs = std::filesystem;

namespace {

constexpr int64_t kLayers = 48, kExperts = 128, kRank = 16, kHidden = 2048, kInner = 768;

Tensor noise(const Shape& shape, uint64_t seed) {
  std::vector<std::byte> bytes(Tensor::zeros(DType::BF16, shape).bytes());
  std::mt19937_64 rng(seed);
  for (size_t at = 0; at < bytes.size(); at += 8) {
    const uint64_t word = rng() & 0xBFFFBFFFBFFFBFFF;  // no NaN
    std::copy_n(reinterpret_cast<const std::byte*>(&word), 8, bytes.data() + at);
  }
  return Tensor(std::make_shared<MemorySource>(DType::BF16, std::move(bytes)), shape);
}

std::string stem(int64_t layer) {
  return fmt::format("base_model.model.model.layers.{}.mlp.experts.", layer);
}

TensorMap stacked_input() {
  TensorMap out;
  for (int64_t l = 0; l < kLayers; ++l) {
    const auto seed = static_cast<uint64_t>(4 * l);
    const int64_t all = kExperts * kRank;
    out.emplace(stem(l) + "base_layer.lora_A.weight", noise({all, kHidden}, seed));
    out.emplace(stem(l) + "base_layer.lora_B.weight", noise({2 * kInner, all}, seed + 1));
    out.emplace(stem(l) + "lora_A.weight", noise({all, kInner}, seed + 2));
    out.emplace(stem(l) + "lora_B.weight", noise({kHidden, all}, seed + 3));
  }
  return out;
}

TensorMap to_experts(const TensorMap& in) {
  TensorMap out;
  for (int64_t l = 0; l < kLayers; ++l) {
    const auto a = [&](const std::string& side, int64_t e) {
      return in.at(stem(l) + side + "lora_A.weight").slice(0, e * kRank, kRank);
    };
    const auto b = [&](const std::string& side, int64_t e) {
      const Tensor& t = in.at(stem(l) + side + "lora_B.weight");
      return t.reshape({t.dim(0), kRank, kExperts}).select(2, e);
    };
    for (int64_t e = 0; e < kExperts; ++e) {
      const std::string expert = stem(l) + std::to_string(e);
      out.emplace(expert + ".gate_proj.lora_A.weight", a("base_layer.", e));
      out.emplace(expert + ".up_proj.lora_A.weight", a("base_layer.", e));
      out.emplace(expert + ".gate_proj.lora_B.weight", b("base_layer.", e).slice(0, 0, kInner));
      out.emplace(expert + ".up_proj.lora_B.weight", b("base_layer.", e).slice(0, kInner, kInner));
      out.emplace(expert + ".down_proj.lora_A.weight", a("", e));
      out.emplace(expert + ".down_proj.lora_B.weight", b("", e));
    }
  }
  return out;
}

TensorMap to_stacked(const TensorMap& in) {
  TensorMap out;
  for (int64_t l = 0; l < kLayers; ++l) {
    std::vector<Tensor> gate_a, gate_b, down_a, down_b;
    for (int64_t e = 0; e < kExperts; ++e) {
      const auto at = [&](const std::string& name) {
        return in.at(stem(l) + std::to_string(e) + "." + name + ".weight");
      };
      gate_a.push_back(at("gate_proj.lora_A"));
      gate_b.push_back(
          Tensor::concat(0, std::vector{at("gate_proj.lora_B"), at("up_proj.lora_B")}));
      down_a.push_back(at("down_proj.lora_A"));
      down_b.push_back(at("down_proj.lora_B"));
    }
    const auto columns = [](const std::vector<Tensor>& parts) {
      const Tensor all = Tensor::stack(parts).permute({1, 2, 0});
      return all.reshape({all.dim(0), kRank * kExperts});
    };
    out.emplace(stem(l) + "base_layer.lora_A.weight", Tensor::concat(0, gate_a));
    out.emplace(stem(l) + "base_layer.lora_B.weight", columns(gate_b));
    out.emplace(stem(l) + "lora_A.weight", Tensor::concat(0, down_a));
    out.emplace(stem(l) + "lora_B.weight", columns(down_b));
  }
  return out;
}

TensorMap renamed(const TensorMap& in) {
  TensorMap out;
  for (const auto& [name, tensor] : in) out.emplace("x." + name, tensor);
  return out;
}

void write(const std::string& path, const TensorMap& tensors, bool durable, int threads) {
  OutputFolder out(path, {}, {false, durable});
  WriteOptions options;
  options.threads = threads;
  write_weights(out, "adapter_model", tensors, options);
  out.commit("adapter_config.json", "{}\n");
}

TensorMap read(const std::string& folder) {
  return open_weights(folder, {"adapter_model"}).tensors;
}

double seconds_of(const std::function<void()>& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

void shell(const std::string& command) {
  if (std::system(command.c_str()) != 0) throw Error(command, "failed");
}

struct Contender {
  std::string name;
  std::function<void()> work;
  std::vector<double> seconds = {};

  double median() {
    std::sort(seconds.begin(), seconds.end());
    return seconds[seconds.size() / 2];
  }
};

struct Bench {
  std::string folder;
  int rounds, threads;

  void run_case(const std::string& title, const TensorMap& tensors) const {
    const std::string out = folder + "/out", copy = folder + "/copy", like = folder + "/like";
    fs::remove_all(like);
    write(like, tensors, false, threads);
    const std::string weights = like + "/adapter_model.safetensors";
    const auto copy_with = [&](const std::string& command) { return [=] { shell(command); }; };
    const std::string dd = "dd if=" + weights + " of=" + copy + " bs=4M oflag=direct status=none";
    std::vector<Contender> contenders = {
        {"cp", copy_with("cp " + weights + " " + copy)},
        {"dd direct", copy_with(dd)},
        {"write_weights", [&] { write(out, tensors, false, threads); }},
        {"cp, fsync", copy_with("cp " + weights + " " + copy + " && sync " + copy)},
        {"dd direct, fsync", copy_with(dd + " conv=fsync")},
        {"write_weights, fsync", [&] { write(out, tensors, true, threads); }},
    };
    for (int round = 0; round <= rounds; ++round)
      for (Contender& contender : contenders) {
        fs::remove_all(out);
        fs::remove(copy);
        sync();
        const double seconds = seconds_of(contender.work);
        if (round > 0) contender.seconds.push_back(seconds);
      }
    report(title, static_cast<double>(fs::file_size(weights)), contenders);
    fs::remove_all(like);
  }

  static void report(const std::string& title, double bytes, std::vector<Contender>& contenders) {
    for (size_t i = 0; i < contenders.size(); ++i) {
      const double best =
          std::min(contenders[i / 3 * 3].median(), contenders[i / 3 * 3 + 1].median());
      Contender& it = contenders[i];
      const double median = it.median();
      fmt::print("| {} | {} | {:.2f} ({:.2f}–{:.2f}) | {:.2f} | {:.2f} |\n", title, it.name, median,
                 it.seconds.front(), it.seconds.back(), bytes / median * 1e-9, best / median);
    }
    std::fflush(stdout);
  }
};

void run(const Bench& bench) {
  fs::create_directories(bench.folder);
  const std::string stacked = bench.folder + "/stacked", linear = bench.folder + "/linear";
  if (!fs::exists(stacked)) write(stacked, stacked_input(), true, bench.threads);
  if (!fs::exists(linear)) write(linear, to_experts(read(stacked)), true, bench.threads);
  fmt::print(
      "| case | contender | wall s | GB/s of output | against the better copy |\n"
      "|---|---|---|---|---|\n");
  bench.run_case("stacked to per-expert", to_experts(read(stacked)));
  bench.run_case("per-expert to stacked", to_stacked(read(linear)));
  bench.run_case("per-expert renamed", renamed(read(linear)));
  bench.run_case("stacked renamed", renamed(read(stacked)));
  rusage used{};
  getrusage(RUSAGE_SELF, &used);
  fmt::print("\npeak memory of the process {} MB\n", used.ru_maxrss / 1000);
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2) {
    fmt::print("usage: write_bench FOLDER [ROUNDS] [THREADS]\n");
    return 2;
  }
  try {
    run({argv[1], argc > 2 ? std::atoi(argv[2]) : 5, argc > 3 ? std::atoi(argv[3]) : 0});
  } catch (const std::exception& error) {
    fmt::print(stderr, "write_bench: {}\n", error.what());
    return 1;
  }
}
