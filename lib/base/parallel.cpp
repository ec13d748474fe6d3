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
  std::atomic<int64_t> next = 0, failed = count;  // the lowest item that did
  std::exception_ptr error;                       // of that
  std::mutex mutex;
  const auto run = [&](int worker) {
    while (failed == count) {
      const int64_t item = next++;
      if (item >= count) return;
      try {
        work(item, worker);
      } catch (...) {
        const std::lock_guard lock(mutex);
        if (item > failed) continue;
        failed = item;
        error = std::current_exception();
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
  if (error) std::rethrow_exception(error);
}

std::string parallel_text(
    int64_t count, int threads,
    const std::function<void(int64_t first, int64_t last, std::string& out)>& append) {
  constexpr int64_t kParts = 512;  // a fraction of a millisecond each
  std::vector<std::string> texts(static_cast<size_t>((count + kParts - 1) / kParts));
  parallel_for(std::ssize(texts), threads, [&](int64_t i, int) {
    append(i * kParts, std::min(count, (i + 1) * kParts), texts[static_cast<size_t>(i)]);
  });
  size_t bytes = 0;
  for (const std::string& text : texts) bytes += text.size();
  std::string out;
  out.reserve(bytes);
  for (const std::string& text : texts) out += text;
  return out;
}

}  // namespace moelora
