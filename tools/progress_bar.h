#pragma once

#include <chrono>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <string>
#include <string_view>
#include <thread>

#include "lib/base/progress.h"

namespace moelora {

// Progress on stderr: a bar, or where nobody knows how much a stage will be, how much was read and
// the time. It shows only when stderr is a terminal, quiet is off and the stage has taken over a
// second; it is redrawn at most 10 times a second and wiped at the end of a stage. A stage whose
// total is not known is redrawn without being told: no job leaves the screen blank. One begins with
// the bar ("reading") and one when a stage with a total ends ("finishing").
class ProgressBar {
 public:
  explicit ProgressBar(bool quiet);  // hides the bars that there are
  ~ProgressBar();
  ProgressBar(const ProgressBar&) = delete;
  ProgressBar& operator=(const ProgressBar&) = delete;

  void show(const Progress& progress);
  void hide();  // until something is shown again

  // The line shown: "converting  42% [########            ] 1.2 of 2.9 GB, 0.61 GB/s, 3 s left",
  // "checking adapters  42% [########            ] 420 of 1000, 3 s left".
  static std::string line(std::string_view stage, uint64_t done, uint64_t total, double seconds);
  // "planning: 3.2 GB read, 12 s".
  static std::string line_without_total(std::string_view stage, uint64_t read, double seconds);

 private:
  using Clock = std::chrono::steady_clock;
  void begin(std::string_view stage, bool has_total);
  void draw(const std::string& text, Clock::time_point now);
  void wipe();
  void beat();  // draws stages without a total
  double seconds(Clock::time_point now) const;

  bool shown_;        // whether anything may be shown at all
  std::mutex mutex_;  // of all below
  bool drawn_ = false, hidden_ = false, has_total_ = false, ends_ = false;
  std::string stage_;
  uint64_t read_ = 0;               // by this process when the stage began
  Clock::time_point start_, next_;  // of the stage; of the next redraw
  std::condition_variable ended_;
  std::thread beating_;
};

// A job that shows its progress so.
JobControl shown_job(bool quiet);

// To be called before anything else is printed: hides every bar.
void hide_progress();

}  // namespace moelora
