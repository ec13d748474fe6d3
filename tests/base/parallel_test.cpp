#include "lib/base/parallel.h"

#include <doctest/doctest.h>
#include <sys/wait.h>
#include <unistd.h>

#include <atomic>
#include <thread>
#include <vector>

#include "lib/base/error.h"

#if defined(__SANITIZE_THREAD__)
#define MOELORA_THREAD_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define MOELORA_THREAD_SANITIZER 1
#endif
#endif
#ifndef MOELORA_THREAD_SANITIZER
#define MOELORA_THREAD_SANITIZER 0
#endif

using namespace moelora;

TEST_CASE("every item is done once, and no worker does two at a time") {
  for (const int threads : {0, 1, 2, 8, 100}) {
    CAPTURE(threads);
    std::vector<std::atomic<int>> done(500), busy(500);
    std::atomic<bool> overlapped = false;
    parallel_for(500, threads, [&](int64_t item, int worker) {
      if (busy[static_cast<size_t>(worker)]++ != 0) overlapped = true;
      ++done[static_cast<size_t>(item)];
      --busy[static_cast<size_t>(worker)];
    });
    for (const auto& n : done) REQUIRE(n == 1);
    CHECK_FALSE(overlapped);
  }
  parallel_for(0, 4, [](int64_t, int) { FAIL("no item"); });
}

TEST_CASE("loops within loops, and of several threads, all run to their end") {
  std::atomic<int> done = 0;
  const auto nested = [&] {
    for (int round = 0; round < 50; ++round)
      parallel_for(3, 3, [&](int64_t, int) { parallel_for(5, 4, [&](int64_t, int) { ++done; }); });
  };
  std::thread one(nested), other(nested);
  one.join();
  other.join();
  CHECK(done == 2 * 50 * 3 * 5);
}

namespace {

// How many loops of three threads each of its workers has been in, this one among them.
std::vector<int> loops_of_workers() {
  static thread_local int loops = 0;
  std::vector<int> out(3);
  std::atomic<int> started = 0;
  parallel_for(3, 3, [&](int64_t, int worker) {
    ++started;
    while (started < 3) std::this_thread::yield();  // one item each
    out[static_cast<size_t>(worker)] = ++loops;
  });
  return out;
}

}  // namespace

TEST_CASE("helper threads are kept from one loop to the next, after an error and a loop within") {
  const std::vector<int> before = loops_of_workers();
  const auto same_threads = [&](int more) {
    const std::vector<int> now = loops_of_workers();
    for (size_t worker = 0; worker < now.size(); ++worker)
      CHECK(now[worker] == before[worker] + more);
  };
  same_threads(1);
  CHECK_THROWS_AS(parallel_for(8, 3, [](int64_t, int) { throw Error("item", "fails"); }), Error);
  same_threads(2);
  std::atomic<int> done = 0;
  CHECK_THROWS_AS(parallel_for(6, 3,
                               [&](int64_t item, int) {
                                 parallel_for(4, 3, [&](int64_t, int) { ++done; });
                                 if (item == 5) parallel_for(4, 3, [](int64_t, int) { throw 1; });
                               }),
                  int);
  CHECK(done == 6 * 4);
  same_threads(3);
}

#if !MOELORA_THREAD_SANITIZER  // which starts no threads in the child of a process that has some
TEST_CASE("the child of a fork has no helpers, and starts its own") {
  std::atomic<int> done = 0;
  const auto count = [&] { parallel_for(100, 4, [&](int64_t, int) { ++done; }); };
  count();
  const pid_t child = fork();
  if (child == 0) {
    count();
    _exit(done == 200 ? 0 : 1);
  }
  int status = -1;
  REQUIRE(waitpid(child, &status, 0) == child);
  CHECK(status == 0);
}
#endif

TEST_CASE("workers are numbered below the number of threads") {
  parallel_for(200, 3, [](int64_t, int worker) {
    if (worker < 0 || worker >= 3) FAIL("worker " << worker);
  });
}

TEST_CASE("of two errors that of the lower item is thrown, whichever comes first") {
  for (const int first : {0, 1}) {
    CAPTURE(first);
    std::atomic<int> started = 0, thrown = 0;
    try {
      parallel_for(2, 2, [&](int64_t item, int) {
        ++started;
        while (started < 2 || (item != first && thrown == 0)) std::this_thread::yield();
        if (item != first) std::this_thread::sleep_for(std::chrono::milliseconds(20));
        ++thrown;
        throw Error("item", std::to_string(item));
      });
      FAIL("no error");
    } catch (const Error& error) {
      CHECK(error.text() == "0");
    }
  }
}

TEST_CASE("after an error no further item is started") {
  std::atomic<int64_t> last = 0;
  CHECK_THROWS_AS(parallel_for(1'000'000, 4,
                               [&](int64_t item, int) {
                                 if (item == 20) throw Error("item", "20");
                                 last = std::max<int64_t>(last, item);
                               }),
                  Error);
  CHECK(last < 999'999);
}
