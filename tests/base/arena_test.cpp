#include "lib/base/arena.h"

#include <doctest/doctest.h>

#include <atomic>
#include <thread>

using namespace moelora;

namespace {

constexpr uint64_t kMiB = 1 << 20;

// Takes a buffer in a thread of its own, and says when it has it.
class Taker {
 public:
  Taker(ArenaPool& pool, size_t number, uint64_t bytes)
      : thread_([this, &pool, number, bytes] {
          try {
            ArenaPool::Lease lease = pool.take(number, bytes);
            data_ = lease->take(bytes).data();
            has_ = true;
            while (!done_) std::this_thread::yield();
          } catch (const ArenaPool::Stopped&) {
            stopped_ = true;
          }
        }) {}
  ~Taker() { finish(); }

  bool has_soon() const {
    for (int i = 0; i < 2000 && !has_; ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    return has_;
  }
  bool waits() const {
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    return !has_ && !stopped_;
  }
  void finish() {
    done_ = true;
    if (thread_.joinable()) thread_.join();
  }
  bool stopped() const { return stopped_; }
  const std::byte* data() const { return data_; }

 private:
  std::atomic<bool> has_ = false, done_ = false, stopped_ = false;
  std::atomic<const std::byte*> data_ = nullptr;
  std::thread thread_;
};

}  // namespace

TEST_CASE("buffers are given out in order and within the limit") {
  ArenaPool pool(10 * kMiB);
  Taker second(pool, 1, 4 * kMiB);
  CHECK(second.waits());
  Taker first(pool, 0, 4 * kMiB);
  CHECK(first.has_soon());
  CHECK(second.has_soon());
  Taker third(pool, 2, 4 * kMiB);
  CHECK(third.waits());
  Taker fourth(pool, 3, kMiB);  // would fit, but it is not its turn
  CHECK(fourth.waits());
  first.finish();
  CHECK(third.has_soon());
  CHECK(third.data() == first.data());
  CHECK(fourth.has_soon());
}

TEST_CASE("kept buffers make room for other sizes, and what is too large gets everything") {
  ArenaPool pool(10 * kMiB);
  { Taker(pool, 0, 4 * kMiB).has_soon(); }
  { Taker(pool, 1, 4 * kMiB).has_soon(); }
  Taker large(pool, 2, 100 * kMiB);
  CHECK(large.has_soon());
  Taker small(pool, 3, kMiB);
  CHECK(small.waits());
  large.finish();
  CHECK(small.has_soon());
}

TEST_CASE("when the pool stops, whoever waits is woken") {
  ArenaPool pool(4 * kMiB);
  Taker first(pool, 0, 4 * kMiB), second(pool, 1, 4 * kMiB), third(pool, 2, kMiB);
  CHECK(first.has_soon());
  pool.stop();
  second.finish();
  third.finish();
  CHECK(second.stopped());
  CHECK(third.stopped());
}
