#include "lib/base/parallel.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace moelora {
namespace {

using Work = std::function<void(int worker)>;  // throws nothing

// Threads that are kept between loops. To start sixteen takes as long as many a loop, and an
// allocator keeps apart what a thread that ended had freed.
class Helpers {
 public:
  Helpers() : process_(getpid()) {}

  // Runs work(0) here and work(1) to work(count) on other threads, fewer where no more are to be
  // had, and returns when all are done. False, and nothing is run, where another loop has them
  // (this one may be a part of it), or in the child of a fork, which has no threads.
  bool run(int count, const Work& work) {
    if (getpid() != process_ || busy_.test_and_set()) return false;
    const Turn turn{busy_};
    grow(count);
    {
      const std::lock_guard lock(mutex_);
      work_ = &work;
      wanted_ = left_ = std::min(count, size_);
      ++round_;
    }
    begin_.notify_all();
    work(0);
    {
      std::unique_lock lock(mutex_);
      done_.wait(lock, [&] { return left_ == 0; });
    }
    return true;
  }

 private:
  struct Turn {
    std::atomic_flag& busy;
    ~Turn() { busy.clear(); }
  };

  // A function of its own in stack traces too: tests/valgrind.supp names it.
  [[gnu::noinline]] void grow(int count) try {
    for (; size_ < count; ++size_) std::thread(&Helpers::serve, this, size_ + 1, round_).detach();
  } catch (const std::system_error&) {  // no more threads: the work is done by fewer
  }

  void serve(int number, uint64_t round) {
    std::unique_lock lock(mutex_);
    for (;;) {
      begin_.wait(lock, [&] { return round_ != round; });
      round = round_;
      if (number > wanted_) continue;
      const Work& work = *work_;
      lock.unlock();
      work(number);
      lock.lock();
      if (--left_ == 0) done_.notify_one();
    }
  }

  const pid_t process_;
  std::atomic_flag busy_ = ATOMIC_FLAG_INIT;
  std::mutex mutex_;
  std::condition_variable begin_, done_;
  const Work* work_ = nullptr;
  int size_ = 0, wanted_ = 0, left_ = 0;
  uint64_t round_ = 0;
};

void run_on_own_threads(int count, const Work& work) {
  std::vector<std::jthread> helpers;
  try {
    for (int worker = 1; worker <= count; ++worker) helpers.emplace_back(work, worker);
  } catch (const std::system_error&) {
  }
  work(0);
}

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
  std::atomic<int64_t> next = 0, failed = count;  // the lowest item that did
  std::exception_ptr error;                       // of that
  std::mutex mutex;
  const Work run = [&](int worker) {
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
  static auto& helpers = *new Helpers;  // never destroyed: threads wait in it when the process ends
  if (threads <= 1)
    run(0);
  else if (!helpers.run(threads - 1, run))
    run_on_own_threads(threads - 1, run);
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
