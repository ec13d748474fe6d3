// Where lora-validate spends its time: validate_bench ADAPTER BASE [ENGINE...] prints, for each
// step, the median of several rounds in milliseconds; the values last, in GB/s.

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <functional>

#include "lib/check/run_rules.h"
#include "lib/model/base_model.h"
#include "lib/numeric/stats/value_stats.h"

namespace {

using namespace moelora;

double seconds_of(const std::function<void()>& step) {
  const auto begin = std::chrono::steady_clock::now();
  step();
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
}

double median_ms(int rounds, const std::function<void()>& step) {
  std::vector<double> times;
  for (int i = 0; i < rounds; ++i) times.push_back(seconds_of(step) * 1e3);
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

Deployment deployment_for(const Subject& subject, const BaseModel& base, char** engines,
                          int count) {
  Deployment out;
  out.base = base;
  out.adapters.push_back(subject);
  for (int i = 0; i < count; ++i) out.engines.push_back({parse_engine(engines[i]), {}, {}, {}});
  return out;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return EXIT_FAILURE;
  constexpr int kRounds = 7;
  const BaseModel base = open_base(argv[2]);
  SubjectOptions headers_only;
  headers_only.values = false;

  fmt::print("open       {:8.1f} ms\n", median_ms(kRounds, [&] { open_subject(argv[1]); }));
  Subject subject = open_subject(argv[1]);
  fmt::print("interpret  {:8.1f} ms\n", median_ms(kRounds, [&] {
               Subject fresh = subject;
               interpret(fresh, base, headers_only);
             }));
  interpret(subject, base, headers_only);
  Deployment deployment = deployment_for(subject, base, argv + 3, argc - 3);
  for (EngineRun& run : deployment.engines) {
    std::vector<EngineRun> one{run};
    deployment.engines.swap(one);
    fmt::print("plan       {:8.1f} ms  {}\n", median_ms(kRounds, [&] { plan_engines(deployment); }),
               run.choice.label());
    deployment.engines.swap(one);
  }
  plan_engines(deployment);
  RuleResults results;
  fmt::print("rules      {:8.1f} ms\n",
             median_ms(kRounds, [&] { results = run_rules(deployment); }));
  uint64_t bytes = 0;
  for (const auto& [name, tensor] : subject.tensors) bytes += tensor.bytes();
  for (const int threads : {1, 2}) {
    const double ms = median_ms(kRounds, [&] { scan_values(subject.tensors, threads); });
    fmt::print("values     {:8.1f} ms  {:.2f} GB/s, {} threads\n", ms,
               static_cast<double>(bytes) / ms / 1e6, threads);
  }
  fmt::print("{} tensors, {} rules run, {} findings\n", subject.tensors.size(), results.rules_run,
             results.findings.size());
}
