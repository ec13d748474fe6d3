#include "lib/base/parallel.h"

#include <sched.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace moelora {
namespace {

class FirstFailure {
 public:
  void note(int64_t item, std::exception_ptr error) {
    const std::lock_guard lock(mutex_);
    if (error_ && item_ < item) return;
    item_ = item;
    error_ = std::move(error);
    seen_ = true;
  }
  bool seen() const { return seen_; }
  void rethrow() const {
    if (error_) std::rethrow_exception(error_);
  }

 private:
  std::mutex mutex_;
  std::atomic<bool> seen_ = false;
  int64_t item_ = 0;
  std::exception_ptr error_;
};

}  // namespace

int available_threads() {
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof set, &set) == 0) return std::max(1, CPU_COUNT(&set));
  return static_cast<int>(std::max(1U, std::thread::hardware_concurrency()));
}

void parallel_for(int64_t count, int threads,
                  const std::function<void(int64_t item, int worker)>& work) {
  if (threads <= 0) threads = available_threads();
  threads = static_cast<int>(std::min<int64_t>(threads, count));
  std::atomic<int64_t> next = 0;
  FirstFailure failure;
  const auto run = [&](int worker) {
    while (!failure.seen()) {
      const int64_t item = next++;
      if (item >= count) return;
      try {
        work(item, worker);
      } catch (...) {
        failure.note(item, std::current_exception());
      }
    }
  };
  {
    std::vector<std::jthread> helpers;
    try {
      for (int worker = 1; worker < threads; ++worker) helpers.emplace_back(run, worker);
    } catch (const std::system_error&) {  // no more threads to be had: the work is done by fewer
    }
    run(0);
  }
  failure.rethrow();
}

}  // namespace moelora
