#include "lib/base/progress_meter.h"

#include <algorithm>

namespace moelora {
namespace {

constexpr int64_t kBetweenCallsMs = 50;

}  // namespace

ProgressMeter::ProgressMeter(std::string_view stage, uint64_t total_bytes, const JobControl& job)
    : stage_(stage), total_(total_bytes), job_(job), start_(Clock::now()) {}

void ProgressMeter::add(uint64_t bytes) {
  job_.check();
  const uint64_t done = done_ += bytes;
  if (!job_.progress) return;
  const auto elapsed = Clock::now() - start_;
  const int64_t ms = std::chrono::duration_cast<std::chrono::milliseconds>(elapsed).count();
  int64_t due = next_ms_;
  const bool last = done >= total_;
  if (!last && (ms < due || !next_ms_.compare_exchange_strong(due, ms + kBetweenCallsMs))) return;
  const std::lock_guard lock(mutex_);
  job_.progress({stage_, std::min<uint64_t>(done_, total_), total_});
}

void begin_stage(std::string_view stage, const JobControl& job) {
  if (job.progress) job.progress({stage, 0, 0});
}

}  // namespace moelora
