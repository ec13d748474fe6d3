#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <mutex>
#include <string>
#include <string_view>

#include "lib/base/error.h"

namespace moelora {

// How far one stage of a job is, in bytes.
struct Progress {
  std::string_view stage;  // "writing", "comparing", "computing"
  uint64_t done = 0, total = 0;
};

// What a caller hears of a job and how it ends one. Both may be empty. `progress` is called from
// any thread, never by two at once, at most 20 times a second and at the end of each stage;
// `cancelled` is asked between adapters, tensors and blocks of one, from any thread.
struct JobControl {
  std::function<void(const Progress&)> progress;
  std::function<bool()> cancelled;

  void check() const;  // throws Cancelled
};

// The caller cancelled the job. Nothing of its output was published.
class Cancelled : public Error {
 public:
  Cancelled() : Error("", "cancelled") {}
};

// Counts one stage. add() may be called from any thread; it throws Cancelled.
class ProgressMeter {
 public:
  ProgressMeter(std::string_view stage, uint64_t total_bytes, const JobControl& job);

  void add(uint64_t bytes);

 private:
  using Clock = std::chrono::steady_clock;
  std::string stage_;
  uint64_t total_;
  JobControl job_;
  std::atomic<uint64_t> done_ = 0;
  Clock::time_point start_;
  std::atomic<int64_t> next_ms_ = 0;  // since start_, when the next call of progress is due
  std::mutex mutex_;
};

}  // namespace moelora
