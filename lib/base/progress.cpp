#include "lib/base/progress.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>

namespace moelora {
namespace {

constexpr int64_t kSilentMs = 1000, kRedrawMs = 100;
constexpr size_t kBarCells = 24;

}  // namespace

Progress::Progress(std::string label, uint64_t total_bytes, bool quiet)
    : label_(std::move(label)),
      total_(total_bytes),
      shown_(!quiet && isatty(STDERR_FILENO) == 1),
      start_(Clock::now()),
      next_ms_(kSilentMs) {}

Progress::~Progress() {
  if (!drawn_) return;
  std::fputs("\r\x1b[K", stderr);
  std::fflush(stderr);
}

void Progress::add(uint64_t bytes) {
  const uint64_t done = done_ += bytes;
  if (!shown_) return;
  const auto elapsed = Clock::now() - start_;
  const int64_t ms = std::chrono::duration_cast<std::chrono::milliseconds>(elapsed).count();
  int64_t due = next_ms_;
  if (ms < due || !next_ms_.compare_exchange_strong(due, ms + kRedrawMs)) return;
  const std::lock_guard lock(mutex_);
  drawn_ = true;
  const std::string text =
      line(label_, done, total_, std::chrono::duration<double>(elapsed).count());
  std::fputs(("\r" + text + "\x1b[K").c_str(), stderr);
  std::fflush(stderr);
}

std::string Progress::line(const std::string& label, uint64_t done, uint64_t total,
                           double seconds) {
  const double share =
      total == 0 ? 1.0 : std::min(1.0, static_cast<double>(done) / static_cast<double>(total));
  const auto cells = static_cast<size_t>(share * static_cast<double>(kBarCells));
  const double rate = seconds > 0 ? static_cast<double>(done) / seconds : 0;
  const double left = rate > 0 ? (1 - share) * static_cast<double>(total) / rate : 0;
  return fmt::format("{} {:3.0f}% [{}{}] {:.1f} of {:.1f} GB, {:.2f} GB/s, {:.0f} s left", label,
                     share * 100, std::string(cells, '#'), std::string(kBarCells - cells, ' '),
                     static_cast<double>(done) * 1e-9, static_cast<double>(total) * 1e-9,
                     rate * 1e-9, left);
}

}  // namespace moelora
