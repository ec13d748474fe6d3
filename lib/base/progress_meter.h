#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>

#include "lib/base/progress.h"

namespace moelora {

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

// Says that a stage begins of which nobody knows how much it will be: "planning", "checking".
void begin_stage(std::string_view stage, const JobControl& job);

}  // namespace moelora
