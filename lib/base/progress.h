#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <mutex>
#include <string>

namespace moelora {

// A progress bar on stderr. It shows only when stderr is a terminal, quiet is off and the work has
// taken over a second; it is redrawn at most 10 times a second and wiped by the destructor.
// add() may be called from any thread.
class Progress {
 public:
  Progress(std::string label, uint64_t total_bytes, bool quiet);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;

  void add(uint64_t bytes);

  // The line shown: "converting  42% [########            ] 1.2 of 2.9 GB, 0.61 GB/s, 3 s left".
  static std::string line(const std::string& label, uint64_t done, uint64_t total, double seconds);

 private:
  using Clock = std::chrono::steady_clock;
  std::string label_;
  uint64_t total_;
  bool shown_;  // whether anything may be shown at all
  bool drawn_ = false;
  Clock::time_point start_;
  std::atomic<uint64_t> done_ = 0;
  std::atomic<int64_t> next_ms_;  // since start_, when the next redraw is due
  std::mutex mutex_;
};

}  // namespace moelora
