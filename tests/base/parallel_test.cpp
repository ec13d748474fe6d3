#include "lib/base/parallel.h"

#include <doctest/doctest.h>

#include <atomic>
#include <vector>

#include "lib/base/error.h"

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

TEST_CASE("workers are numbered below the number of threads") {
  parallel_for(200, 3, [](int64_t, int worker) {
    if (worker < 0 || worker >= 3) FAIL("worker " << worker);
  });
}

TEST_CASE("the error of the lowest item is thrown, and later items are not started") {
  for (int round = 0; round < 50; ++round) {
    std::atomic<int64_t> last = 0;
    try {
      parallel_for(100'000, 4, [&](int64_t item, int) {
        if (item == 20 || item == 21 || item == 22) throw Error("item", std::to_string(item));
        last = std::max<int64_t>(last, item);
      });
      FAIL("no error");
    } catch (const Error& error) {
      CHECK(error.text() == "20");
    }
    CHECK(last < 99'999);
  }
}
