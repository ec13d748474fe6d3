// How often the order of lora_B's columns is guessed right, on synthetic adapters of known order,
// and how fast the values are looked at.
//
//   b_order_bench [ADAPTERS]
//
// Prints Markdown tables: a grid of sizes and spreads, then structures that could mislead, each of
// ADAPTERS adapters (default 1000), half of them in each order.

#include <fmt/format.h>

#include <algorithm>
#include <cstdlib>
#include <ctime>
#include <utility>
#include <vector>

#include "tests/numeric/made_profile.h"

using namespace moelora;
using namespace moelora::test;

namespace {

int64_t judged = 0, certain_wrong = 0;

std::string cells(const HitRate& rate) {
  judged += rate.all();
  certain_wrong += rate.certain_wrong;
  return fmt::format("{:.1f} | {:.1f} | {:.1f} | {:.1f} | {}", rate.percent(rate.right),
                     rate.percent(rate.wrong), rate.percent(rate.unknown),
                     rate.percent(rate.certain), rate.certain_wrong);
}

constexpr const char* kColumns = "right % | wrong % | unknown % | certain % | certain and wrong |";

void print_grid(int adapters, int pairs) {
  fmt::print(
      "\n{} pair{} an adapter, column sd 0.3:\n\n| E | r | expert sd | {}\n"
      "|---|---|---|---|---|---|---|---|\n",
      pairs, pairs == 1 ? "" : "s", kColumns);
  for (const int64_t experts : {8, 32, 128})
    for (const int64_t rank : {4, 8, 16, 32})
      for (const double expert : {0.0, 0.1, 0.2, 0.5}) {
        MadeProfile made;
        made.experts = experts;
        made.rank = rank;
        made.expert = expert;
        fmt::print("| {} | {} | {} | {} |\n", experts, rank, expert,
                   cells(hit_rate(made, adapters / pairs, pairs)));
      }
}

std::vector<std::pair<const char*, MadeProfile>> structures() {
  std::vector<std::pair<const char*, MadeProfile>> out;
  const auto add = [&](const char* name) -> MadeProfile& {
    out.emplace_back(name, MadeProfile{});
    return out.back().second;
  };
  add("components fall (SVD), experts alike").component = 1;
  auto& both = add("components fall in lora_A too, experts alike");
  both.component = 1, both.rows_fall = true;
  auto& svd = add("components fall in lora_A too, expert sd 0.2");
  svd.component = 1, svd.rows_fall = true, svd.expert = 0.2;
  add("16 neighbouring experts alike, sd 0.5").block = 0.5;
  auto& tails = add("2 % of columns ten times as large, expert sd 0.2");
  tails.tails = 0.02, tails.expert = 0.2;
  add("columns grow with lora_A's rows (0.3 of the variance)").together = 0.3;
  add("4 dead experts").dead = 4;
  auto& padded = add("rank padded from half, experts alike");
  padded.padding = -1;
  auto& padded_expert = add("rank padded from half, expert sd 0.2");
  padded_expert.padding = -1, padded_expert.expert = 0.2;
  return out;
}

void print_structures(int adapters) {
  fmt::print("\n| structure | E | r | {}\n|---|---|---|---|---|---|---|---|\n", kColumns);
  for (auto& [name, made] : structures())
    for (const auto& [experts, rank] : {std::pair(32, 8), std::pair(32, 32), std::pair(128, 16)}) {
      MadeProfile here = made;
      here.experts = experts;
      here.rank = rank;
      if (here.padding < 0) here.padding = rank / 2;
      fmt::print("| {} | {} | {} | {} |\n", name, experts, rank, cells(hit_rate(here, adapters)));
    }
}

// Of this process, so that the machine's other work does not count.
double cpu_seconds() {
  timespec now{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
  return static_cast<double>(now.tv_sec) + 1e-9 * static_cast<double>(now.tv_nsec);
}

// A pair of Qwen3-30B-A3B at rank 16, in memory.
void print_speed() {
  for (const DType dtype : {DType::BF16, DType::F32}) {
    const int64_t rows = 128 * 16, in = 2048, out = 1536;
    const auto width = static_cast<size_t>(dtype_bytes(dtype));
    const auto noise = [&](const Shape& shape) {
      std::mt19937_64 random(1);
      std::vector<std::byte> bytes(static_cast<size_t>(shape[0] * shape[1]) * width);
      for (size_t at = 0; at < bytes.size(); at += 8) {
        const uint64_t word = random() & 0xBFFFBFFFBFFFBFFF;  // no NaN
        std::copy_n(reinterpret_cast<const std::byte*>(&word), 8, bytes.data() + at);
      }
      return Tensor(std::make_shared<MemorySource>(dtype, std::move(bytes)), shape);
    };
    const Tensor a = noise({rows, in}), b = noise({out, rows});
    double best = 1e9, judging = 1e9;
    for (int round = 0; round < 20; ++round) {
      const double begin = cpu_seconds();
      const StackedProfile profile = profile_stacked_pair(a, b, 128);
      const double middle = cpu_seconds();
      b_order_evidence(profile);
      best = std::min(best, middle - begin);
      judging = std::min(judging, cpu_seconds() - middle);
    }
    fmt::print("\n{}: {:.1f} GB/s on one core, then {:.2f} ms a pair\n", dtype_name(dtype),
               static_cast<double>(a.bytes() + b.bytes()) / best / 1e9, judging * 1e3);
  }
}

}  // namespace

int main(int argc, char** argv) {
  const int adapters = argc > 1 ? std::atoi(argv[1]) : 1000;
  print_grid(adapters, 1);
  print_grid(adapters, 8);
  print_structures(adapters);
  print_speed();
  fmt::print("\n{} adapters judged, {} certain and wrong\n", judged, certain_wrong);
  return certain_wrong == 0 ? 0 : 1;
}
