#pragma once

#include <chrono>
#include <cstdint>
#include <string>

#include "lib/base/progress.h"

namespace moelora {

// Progress as a bar on stderr. It shows only when stderr is a terminal, quiet is off and the stage
// has taken over a second; it is redrawn at most 10 times a second and wiped at the end of a stage.
class ProgressBar {
 public:
  explicit ProgressBar(bool quiet);
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  void show(const Progress& progress);

  // The line shown: "converting  42% [########            ] 1.2 of 2.9 GB, 0.61 GB/s, 3 s left",
  // "checking adapters  42% [########            ] 420 of 1000, 3 s left".
  static std::string line(std::string_view stage, uint64_t done, uint64_t total, double seconds);

 private:
  using Clock = std::chrono::steady_clock;
  void wipe();

  bool shown_;  // whether anything may be shown at all
  bool drawn_ = false;
  std::string stage_;
  Clock::time_point start_, next_;  // of the stage; of the next redraw
};

// A job that shows its progress so.
JobControl shown_job(bool quiet);

}  // namespace moelora
